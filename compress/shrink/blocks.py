"""How many rows share their columns in each layer: settled by measured times, not by taste.

Fewer rows a block leave training more freedom; a layer whose product is no faster than the dense
one at any size stays dense (export/latency.py has the table and the rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from compress.models.config import SUBSAMPLING
from compress.models.transducer import Transducer

TYPICAL_SPARSITY = 0.9  # where a layer's block is judged: one choice for a whole ramp


@dataclass(frozen=True)
class Blocks:
    """specs: module -> "block:64" or "dense"; dense: modules that would not gain, by name."""

    specs: dict[str, str]

    @property
    def dense(self) -> list[str]:
        return [name for name, spec in self.specs.items() if spec == "dense"]


def rows_of(model: Transducer, name: str) -> int:
    """Vectors that a module sees in one call on the device: frames of a chunk, or one label."""
    if not name.startswith("encoder."):
        return 1
    rows = model.encoder.chunk_frames // SUBSAMPLING
    return 2 * rows if name.endswith("front.first") else rows


def choose_blocks(dense: Transducer, names: Sequence[str], precision: str) -> Blocks:
    """The block of every named module."""
    if not names:
        return Blocks({})
    from export.latency import choose_group, load_table

    specs: dict[str, str] = {}
    table = load_table()
    for name in names:
        recurrent = isinstance(dense.get_submodule(name), nn.LSTM)
        weight = dense.get_parameter(f"{name}.weight{'_hh_l0' if recurrent else ''}")
        outputs, inputs = weight.shape[0], weight[0].numel()
        rows = rows_of(dense, name)
        group = choose_group(table, inputs, outputs, rows, TYPICAL_SPARSITY, precision)
        specs[name] = f"block:{group}" if group else "dense"
    return Blocks(specs)
