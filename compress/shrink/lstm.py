"""Pruning nn.LSTM: torch-pruning 1.6 prunes weight_hh twice on one axis and raises.

# Letters: H hidden units, I inputs.
"""

from __future__ import annotations

import torch
import torch_pruning as tp
from torch import Tensor, nn

NUM_GATES = 4  # input, forget, cell, output: stacked in every parameter's first axis


class LstmPruner(tp.BasePruningFunc):
    """Removes hidden units from all four gates and from the recurrence, or inputs."""

    TARGET_MODULES = nn.LSTM

    def prune_out_channels(self, layer: nn.LSTM, idxs: list[int]) -> nn.LSTM:
        kept = kept_indices(layer.hidden_size, idxs)
        gates = torch.cat([kept + gate * layer.hidden_size for gate in range(NUM_GATES)])
        for name, _ in list(layer.named_parameters()):
            select(layer, name, gates, dim=0)
        select(layer, "weight_hh_l0", kept, dim=1)
        layer.hidden_size = len(kept)
        return layer

    def prune_in_channels(self, layer: nn.LSTM, idxs: list[int]) -> nn.LSTM:
        kept = kept_indices(layer.input_size, idxs)
        select(layer, "weight_ih_l0", kept, dim=1)
        layer.input_size = len(kept)
        return layer

    def get_out_channels(self, layer: nn.LSTM) -> int:
        return layer.hidden_size

    def get_in_channels(self, layer: nn.LSTM) -> int:
        return layer.input_size


def gates_of(model: nn.Module, name: str) -> int:
    """How many values a unit has along the first axis of parameter `name`: 4 in an LSTM."""
    path, _, leaf = name.rpartition(".")
    gated = isinstance(model.get_submodule(path), nn.LSTM) and not leaf.startswith("weight_hr")
    return NUM_GATES if gated else 1


def kept_indices(width: int, removed: list[int]) -> Tensor:
    return torch.tensor(sorted(set(range(width)) - set(removed)))


def select(layer: nn.LSTM, name: str, kept: Tensor, dim: int) -> None:
    setattr(layer, name, nn.Parameter(getattr(layer, name).detach().index_select(dim, kept)))


class OneOperationLstm(nn.LSTM):
    """An LSTM to trace: one operation from (.., I) to (.., H).

    torch-pruning would follow the gates' split inside the real one and lose count of channels.
    """

    def forward(self, x: Tensor, state: object = None) -> tuple[Tensor, None]:
        return x.mean(-1, keepdim=True) + x.new_zeros(self.hidden_size), None
