"""Four frames in, one frame out: normalisation and two strided convolutions.

# Letters: B utterances, T frames, F mel bins, D width.

Padding happens once, in front of the whole utterance, by HISTORY zero frames after normalisation;
both convolutions are valid. Output frame t then sees input frames 4t-3 .. 4t+3, so a chunk of 4n
frames gives exactly n outputs and needs only the last three frames of the chunk before it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

HISTORY = 3  # frames of the previous chunk that the two kernels of 3 with stride 2 still need


class Subsampling(nn.Module):
    """(B, HISTORY + 4n, F) normalised frames -> (B, n, D). Mean and deviation are constants."""

    mean: Tensor
    scale: Tensor

    def __init__(self, num_mel_bins: int, hidden: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((num_mel_bins,), -6.0))
        self.register_buffer("scale", torch.full((num_mel_bins,), 0.25))
        self.first = nn.Conv1d(num_mel_bins, hidden, 3, stride=2)
        self.second = nn.Conv1d(hidden, width, 3, stride=2)

    def set_normalisation(self, mean: Tensor, deviation: Tensor) -> None:
        """Store the training data's mean and deviation per mel bin, each (F,)."""
        self.mean.copy_(mean)
        self.scale.copy_(1.0 / deviation.clamp_min(1e-3))

    def normalise(self, features: Tensor) -> Tensor:
        return (features - self.mean) * self.scale

    def forward(self, frames: Tensor) -> Tensor:
        hidden = torch.relu(self.first(frames.transpose(1, 2)))
        return torch.relu(self.second(hidden)).transpose(1, 2)
