"""Unidirectional LSTM layers after the common subsampling.

# Letters: B utterances, N streams, T input frames, S encoder frames, F mel bins, H hidden.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.models.config import SUBSAMPLING, LstmConfig
from compress.models.subsampling import HISTORY, Subsampling
from streaming.features import SILENCE

State = tuple[Tensor, ...]


class LstmEncoder(nn.Module):
    """One nn.LSTM a layer, so that each may have its own width after pruning."""

    subsampling = SUBSAMPLING

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.chunk_frames = config.chunk_frames
        self.num_mel_bins = config.num_mel_bins
        self.dropout = config.dropout
        self.front = Subsampling(config.num_mel_bins, config.subsampling_width, config.width)
        widths = [config.width, *config.hidden]
        self.layers = nn.ModuleList(
            nn.LSTM(before, after, batch_first=True) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for hidden in config.hidden)
        self.project = nn.Linear(widths[-1], config.joint_width)

    def forward(
        self, features: Tensor, feature_lengths: Tensor, chunk_frames: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """features (B, T, F), feature_lengths (B,) -> encoded (B, S, J), logit_lengths (B,).

        chunk_frames: of this pass, the encoder's own by default; it changes the padding alone.
        """
        hidden, logit_lengths = self.hidden(features, feature_lengths, chunk_frames)
        return self.project(hidden), logit_lengths

    def hidden(
        self, features: Tensor, feature_lengths: Tensor, chunk_frames: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, before the projection to the joiner: (B, S, H)."""
        short = -features.shape[1] % (chunk_frames or self.chunk_frames)
        frames = self.front.normalise(F.pad(features, (0, 0, 0, short), value=SILENCE))
        x = self.front(F.pad(frames, (0, 0, HISTORY, 0)))
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.dropout(norm(layer(x)[0]), self.dropout, self.training)
        return x, (feature_lengths + SUBSAMPLING - 1) // SUBSAMPLING

    def initial_state(self, num_streams: int) -> State:
        """Normalised frame history, then h and c of each layer, (N, H); zero means empty."""
        device = self.project.weight.device
        state = [torch.zeros(num_streams, HISTORY, self.num_mel_bins, device=device)]
        for layer in cast("list[nn.LSTM]", list(self.layers)):
            state += [torch.zeros(num_streams, layer.hidden_size, device=device)] * 2
        return tuple(state)

    def streaming_forward(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """features (N, chunk_frames, F), state -> encoded (N, chunk_frames / 4, J), state."""
        frames = torch.cat([state[0], self.front.normalise(features)], dim=1)
        x = self.front(frames)
        next_state = [frames[:, -HISTORY:]]
        for index, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            h, c = state[1 + 2 * index][None], state[2 + 2 * index][None]
            x, (h, c) = layer(x, (h, c))
            x = norm(x)
            next_state += [h[0], c[0]]
        return self.project(x), tuple(next_state)
