"""Pruning nn.LSTM: torch-pruning 1.6 prunes weight_hh twice on one axis and raises.

One module has one width for all its layers. So layers lose as many units each, at the same places;
`reorder_outputs_` and `reorder_cells_` bring the units that should go there first.

# Letters: I inputs, H cells, P outputs of a layer: H, or proj_size where there are projections.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch_pruning as tp
from torch import Tensor, nn

NUM_GATES = 4  # input, forget, cell, output: stacked in every parameter's first axis

# name -> shape of layer 0, whose later ones read P instead of I:
#   weight_ih (4H, I)   weight_hh (4H, P)   bias_ih, bias_hh (4H,)   weight_hr (P, H) if projected


class LstmPruner(tp.BasePruningFunc):
    """Removes outputs, from all layers, or inputs; and cells, which no other module sees."""

    TARGET_MODULES = nn.LSTM

    def prune_out_channels(self, layer: nn.LSTM, idxs: list[int]) -> nn.LSTM:
        """Outputs are cells where there are no projections: all four gates go with them."""
        kept = kept_indices(num_outputs(layer), idxs)
        for number in range(layer.num_layers):
            keep_outputs(layer, number, kept)
        if layer.proj_size:
            layer.proj_size = len(kept)
        else:
            keep_cells(layer, kept)
        return layer

    def prune_cells(self, layer: nn.LSTM, idxs: list[int]) -> nn.LSTM:
        """Cells of a layer with projections; torch needs more cells than outputs."""
        assert layer.proj_size, "without projections cells are outputs"
        kept = kept_indices(layer.hidden_size, idxs)
        for number in range(layer.num_layers):
            select(layer, f"weight_hr_l{number}", kept, dim=1)
        keep_cells(layer, kept)
        return layer

    def prune_in_channels(self, layer: nn.LSTM, idxs: list[int]) -> nn.LSTM:
        kept = kept_indices(layer.input_size, idxs)
        select(layer, "weight_ih_l0", kept, dim=1)
        layer.input_size = len(kept)
        return layer

    def get_out_channels(self, layer: nn.LSTM) -> int:
        return num_outputs(layer)

    def get_in_channels(self, layer: nn.LSTM) -> int:
        return layer.input_size


def num_outputs(layer: nn.LSTM) -> int:
    return layer.proj_size or layer.hidden_size


def gates_of(model: nn.Module, name: str) -> int:
    """How many values a unit has along the first axis of parameter `name`: 4 in an LSTM."""
    path, _, leaf = name.rpartition(".")
    gated = isinstance(model.get_submodule(path), nn.LSTM) and not leaf.startswith("weight_hr")
    return NUM_GATES if gated else 1


def kept_indices(width: int, removed: Sequence[int]) -> Tensor:
    return torch.tensor(sorted(set(range(width)) - set(removed)))


def keep_outputs(layer: nn.LSTM, number: int, kept: Tensor) -> None:
    """What makes and what reads the outputs of layer `number` inside the module, but the gates."""
    assert not layer.bidirectional, "a stream has no backward direction"
    select(layer, f"weight_hh_l{number}", kept, dim=1)
    if layer.proj_size:
        select(layer, f"weight_hr_l{number}", kept, dim=0)
    if number + 1 < layer.num_layers:
        select(layer, f"weight_ih_l{number + 1}", kept, dim=1)


def keep_cells(layer: nn.LSTM, kept: Tensor) -> None:
    for number in range(layer.num_layers):
        keep_gates(layer, number, kept)
    layer.hidden_size = len(kept)


def keep_gates(layer: nn.LSTM, number: int, kept: Tensor) -> None:
    gates = torch.cat([kept + gate * layer.hidden_size for gate in range(NUM_GATES)])
    for kind in ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if layer.bias else ())):
        select(layer, f"{kind}_l{number}", gates, dim=0)


def reorder_outputs_(layer: nn.LSTM, number: int, order: Tensor) -> None:
    """Output order[i] of layer `number` becomes its i-th; the last layer's are seen outside."""
    keep_outputs(layer, number, order)
    if not layer.proj_size:
        keep_gates(layer, number, order)


def reorder_cells_(layer: nn.LSTM, number: int, order: Tensor) -> None:
    """Cell order[i] of layer `number` becomes its i-th, where projections hide the cells."""
    assert layer.proj_size, "without projections cells are outputs"
    select(layer, f"weight_hr_l{number}", order, dim=1)
    keep_gates(layer, number, order)


def select(layer: nn.LSTM, name: str, kept: Tensor, dim: int) -> None:
    setattr(layer, name, nn.Parameter(getattr(layer, name).detach().index_select(dim, kept)))


class OneOperationLstm(nn.LSTM):
    """An LSTM to trace: one operation from (.., I) to (.., P).

    torch-pruning would follow the gates' split inside the real one and lose count of channels.
    """

    def forward(self, x: Tensor, state: object = None) -> tuple[Tensor, None]:
        return x.mean(-1, keepdim=True) + x.new_zeros(num_outputs(self)), None
