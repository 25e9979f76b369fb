"""Predictors: what was emitted so far -> (.., J).

# Letters: B utterances, N contexts, U labels, P width, J joint width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.models.config import (
    LstmPredictorConfig,
    PredictorConfig,
    StatelessPredictorConfig,
)

BLANK = 0
Memory = tuple[Tensor, ...]  # what a predictor knows of N streams, each tensor (N, ..)


class StatelessPredictor(nn.Module):
    """Sum over the last `context` labels of embedding times a weight per position and channel.

    Label -1 means nothing and embeds to zero: sherpa-onnx starts with [-1, ..., -1, 0].
    """

    def __init__(self, vocab_size: int, config: StatelessPredictorConfig) -> None:
        super().__init__()
        self.context = config.context
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.positions = nn.Parameter(torch.full((config.context, config.width), 1.0))
        self.project = nn.Linear(config.width, config.joint_width)

    def forward(self, labels: Tensor) -> Tensor:
        """labels (N, context) int64 -> (N, J)."""
        present = (labels >= 0).unsqueeze(-1)
        embedded = self.embedding(labels.clamp(min=0)) * present
        return self.project(torch.relu((embedded * self.positions).sum(dim=-2)))

    def initial_context(self, num_streams: int, device: torch.device) -> Tensor:
        context = torch.full((num_streams, self.context), -1, dtype=torch.long, device=device)
        context[:, -1] = BLANK
        return context

    def empty_memory(self, num_streams: int) -> Memory:
        """(N, context) labels that are not there."""
        return (self.positions.new_full((num_streams, self.context), -1, dtype=torch.long),)

    def step(self, labels: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Each stream's new label (N,) -> (N, J) and the next memory."""
        context = torch.cat([memory[0][:, 1:], labels[:, None]], 1)
        return self(context), (context,)

    def forward_sequence(self, targets: Tensor) -> Tensor:
        """targets (B, U) -> (B, U+1, J): row u has seen the first u labels."""
        start = self.initial_context(targets.shape[0], targets.device)
        padded = torch.cat([start, targets], dim=1)
        return self(padded.unfold(1, self.context, 1))


class LstmPredictor(nn.Module):
    """Embedding and one LSTM layer; the first input is blank."""

    def __init__(self, vocab_size: int, config: LstmPredictorConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.embedding)
        self.lstm = nn.LSTM(config.embedding, config.width, batch_first=True)
        self.project = nn.Linear(config.width, config.joint_width)

    def forward(self, labels: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """labels (N, 1) int64, h and c (1, N, P) -> (N, J), h, c."""
        out, (h, c) = self.lstm(self.embedding(labels), (h, c))
        return self.project(out[:, 0]), h, c

    def initial_state(self, num_streams: int) -> tuple[Tensor, Tensor]:
        """h and c (1, N, P) before the first label, which is blank."""
        h = self.project.weight.new_zeros(1, num_streams, self.lstm.hidden_size)
        return h, torch.zeros_like(h)

    def empty_memory(self, num_streams: int) -> Memory:
        """h and c (N, P)."""
        h, c = self.initial_state(num_streams)
        return h[0], c[0]

    def step(self, labels: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Each stream's new label (N,) -> (N, J) and the next memory."""
        predicted, h, c = self(labels[:, None], *(part[None] for part in memory))
        return predicted, (h[0], c[0])

    def forward_sequence(self, targets: Tensor) -> Tensor:
        """targets (B, U) -> (B, U+1, J): row u has seen the first u labels."""
        return self.project(self.lstm(self.embedding(F.pad(targets, (1, 0), value=BLANK)))[0])


def build_predictor(vocab_size: int, config: PredictorConfig) -> StatelessPredictor | LstmPredictor:
    """The predictor that `config` describes, with fresh weights."""
    if isinstance(config, StatelessPredictorConfig):
        return StatelessPredictor(vocab_size, config)
    return LstmPredictor(vocab_size, config)
