"""The additive joiner."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Joiner(nn.Module):
    """logits = W tanh(encoded + predicted) + b; both projections belong to the other networks."""

    def __init__(self, joint_width: int, vocab_size: int) -> None:
        super().__init__()
        self.output = nn.Linear(joint_width, vocab_size)

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """encoded (N, J), predicted (N, J) -> logits (N, V)."""
        return self.output(torch.tanh(encoded + predicted))
