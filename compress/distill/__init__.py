"""Distillation methods, one a file, each a subclass of Distiller.

To add one: a file, a line in DISTILLERS, a row in the parametrised test.
"""

from __future__ import annotations

from compress.distill.distiller import Distiller
from compress.distill.lattice import Lattice

DISTILLERS: dict[str, type[Distiller]] = {
    "lattice": Lattice,
}
