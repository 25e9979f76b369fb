"""Distillation methods, one a file: function(student view, teacher view, batch) -> loss.

To add one: a file, a line in DISTILLERS, a row in the parametrised test.
"""

from __future__ import annotations

from compress.distill.lattice import lattice
from streaming.errors import InputError

DISTILLERS = {"lattice": lattice}


def parse_distill(text: str) -> dict[str, float]:
    """`lattice=1.0` -> {"lattice": 1.0}; several separated by commas, `none` for none.

    Raises InputError for an unknown method or a weight that is not a positive number.
    """
    if text == "none":
        return {}
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in DISTILLERS:
            known = ", ".join(DISTILLERS)
            raise InputError(f"no distillation method {name!r}: use none or one of {known}")
        try:
            weights[name] = float(number or 1.0)
        except ValueError:
            raise InputError(f"the weight of {name} is a number, got {number!r}") from None
        if not 0 < weights[name] < float("inf"):
            raise InputError(f"the weight of {name} is above 0, got {number}: leave it out instead")
    return weights
