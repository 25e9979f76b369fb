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
from export.latency import LatencyTable, choose_group, choose_lstm_group, load_table
from export.stopwatch import Precision

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


def choose_blocks(dense: Transducer, names: Sequence[str], precision: Precision) -> Blocks:
    """The block of every named module."""
    table = load_table() if names else None
    specs = {}
    for name in names:
        assert table
        group = choose_rows(dense, name, table, precision)
        specs[name] = f"block:{group}" if group else "dense"
    return Blocks(specs)


def choose_rows(
    dense: Transducer, name: str, table: LatencyTable, precision: Precision
) -> int | None:
    """Rows of a block of one module; None where it would not gain."""
    module, rows = dense.get_submodule(name), rows_of(dense, name)
    if isinstance(module, nn.LSTM):
        sizes = module.input_size, module.hidden_size
        return choose_lstm_group(table, *sizes, rows, TYPICAL_SPARSITY, precision)
    if isinstance(module, nn.Conv1d):
        precision = "fp32"  # what it computes in, in the int8 file too
    weight = dense.get_parameter(f"{name}.weight")
    outputs, inputs = weight.shape[0], weight[0].numel()
    return choose_group(table, inputs, outputs, rows, TYPICAL_SPARSITY, precision)
