"""Distillation methods, one a file, each a subclass of Distiller.

To add one: a file, a line in DISTILLERS, a row in the parametrised test.
"""

from __future__ import annotations

from compress.distill.distiller import Distiller
from compress.distill.encoder import Encoder
from compress.distill.full_sum import FullSum
from compress.distill.hard import Hard
from compress.distill.hidden import Hidden
from compress.distill.lattice import Lattice
from compress.distill.lattice_full import LatticeFull
from compress.distill.occupancy import Occupancy
from compress.distill.one_best import OneBest
from compress.distill.sequence import Sequence
from compress.distill.softmax import Softmax

DISTILLERS: dict[str, type[Distiller]] = {
    "lattice": Lattice,
    "lattice_full": LatticeFull,
    "occupancy": Occupancy,
    "one_best": OneBest,
    "encoder": Encoder,
    "hidden": Hidden,
    "softmax": Softmax,
    "full_sum": FullSum,
    "sequence": Sequence,
    "hard": Hard,
}
