"""A causal Conformer that attends inside its chunk and a fixed left context.

# Letters: B utterances, N streams, T input frames, S encoder frames, F mel bins, D width,
#          H heads, d head width, C convolution width, K kernel.

Written so that pruning and int8 work on it: the gated linear unit is two Linears, q, k and v are
separate, pointwise convolutions are Linear. No positional encoding: the causal depthwise
convolutions order the frames, and nothing then ties the weights to a chunk size.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.models.config import SUBSAMPLING, ConformerConfig, ConformerLayerWidths
from compress.models.subsampling import HISTORY, Subsampling
from streaming.errors import InputError
from streaming.features import SILENCE

State = tuple[Tensor, ...]

UNSEEN = -1e4  # its exponential is 0 in every precision


def chunk_mask(num_frames: int, num_valid: Tensor, chunk: int, left_context: int) -> Tensor:
    """(B, 1, S, S), added to attention scores: 0 where frame s may attend frame r, else UNSEEN.

    r lies in the chunk of s or among the `left_context` frames before that chunk, and in a chunk
    that the utterance reaches: `num_valid` (B,) is already rounded up to whole chunks.
    """
    frame = torch.arange(num_frames, device=num_valid.device)
    start = frame // chunk * chunk
    near = (frame[None] < start[:, None] + chunk) & (frame[None] >= start[:, None] - left_context)
    # A padding row must attend to something, or its softmax divides by zero: let it see itself.
    inside = (frame[None, None] < num_valid[:, None, None]) | torch.eye(
        num_frames, dtype=torch.bool, device=frame.device
    )
    return hide((near[None] & inside)[:, None])


def hide(seen: Tensor) -> Tensor:
    return torch.where(seen, 0.0, UNSEEN)


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(F.silu(self.up(self.norm(x))), self.dropout, self.training)
        return self.down(hidden)


class Attention(nn.Module):
    """Multi-head attention; `num_heads` and `head_dim` change together with the weights."""

    def __init__(self, width: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, num_heads * head_dim)
        self.key = nn.Linear(width, num_heads * head_dim)
        self.value = nn.Linear(width, num_heads * head_dim)
        self.out = nn.Linear(num_heads * head_dim, width)

    def heads(self, x: Tensor) -> Tensor:
        """(B, S, H * d) -> (B, H, S, d)."""
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Written out: the backward of torch's fused one takes ten times as long on a CPU, 5.4
        against 0.5 ms at B=25, S=56, H=4, d=16 in bfloat16."""
        scores = (query * self.head_dim**-0.5) @ key.transpose(-1, -2)
        mixed = (scores + mask.to(scores.dtype)).softmax(-1).to(value.dtype) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(x)
        query, key, value = self.query(x), self.key(x), self.value(x)
        return self.attend(self.heads(query), self.heads(key), self.heads(value), mask)

    def step(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One chunk: `keys`, `values` (N, left_context, H * d) are the cached left context."""
        x = self.norm(x)
        left_context = keys.shape[1]
        keys = torch.cat([keys, self.key(x)], dim=1)
        values = torch.cat([values, self.value(x)], dim=1)
        out = self.attend(self.heads(self.query(x)), self.heads(keys), self.heads(values), mask)
        return out, keys[:, -left_context:], values[:, -left_context:]


class Convolution(nn.Module):
    """Gated, causal depthwise convolution over K frames; history of K - 1 gated frames."""

    def __init__(self, width: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.history = kernel_size - 1
        self.norm = nn.LayerNorm(width)
        self.value = nn.Linear(width, channels)
        self.gate = nn.Linear(width, channels)
        self.depthwise = nn.Conv1d(channels, channels, kernel_size, groups=channels)
        self.inner_norm = nn.LayerNorm(channels)
        self.out = nn.Linear(channels, width)

    def step(self, x: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, S, D), history (N, C, K-1) -> output (N, S, D), next history."""
        x = self.norm(x)
        gated = (self.value(x) * torch.sigmoid(self.gate(x))).transpose(1, 2)
        gated = torch.cat([history.to(gated.dtype), gated], dim=2)
        mixed = self.depthwise(gated).transpose(1, 2)
        return self.out(F.silu(self.inner_norm(mixed))), gated[:, :, -self.history :]

    def forward(self, x: Tensor) -> Tensor:
        channels = self.depthwise.out_channels
        return self.step(x, x.new_zeros(x.shape[0], channels, self.history))[0]


class ConformerLayer(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm (2005.08100 eq. 1)."""

    def __init__(
        self, width: int, widths: ConformerLayerWidths, kernel_size: int, dropout: float
    ) -> None:
        super().__init__()
        self.feed_forward_in = FeedForward(width, widths.feed_forward_in, dropout)
        self.attention = Attention(width, widths.num_heads, widths.head_dim)
        self.convolution = Convolution(width, widths.convolution, kernel_size)
        self.feed_forward_out = FeedForward(width, widths.feed_forward_out, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + 0.5 * self.feed_forward_in(x)
        x = x + self.attention(x, mask)
        x = x + self.convolution(x)
        return self.norm(x + 0.5 * self.feed_forward_out(x))

    def step(self, x: Tensor, state: State, mask: Tensor) -> tuple[Tensor, State]:
        keys, values, history = state
        x = x + 0.5 * self.feed_forward_in(x)
        attended, keys, values = self.attention.step(x, keys, values, mask)
        x = x + attended
        convolved, history = self.convolution.step(x, history)
        x = x + convolved
        return self.norm(x + 0.5 * self.feed_forward_out(x)), (keys, values, history)


class ConformerEncoder(nn.Module):
    """See the module's docstring; `forward` is the whole utterance, `streaming_forward` a chunk."""

    subsampling = SUBSAMPLING

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.chunk_frames = config.chunk_frames
        self.left_context = config.left_context
        self.full_context = config.full_context
        self.num_mel_bins = config.num_mel_bins
        self.front = Subsampling(config.num_mel_bins, config.subsampling_width, config.width)
        self.layers = nn.ModuleList(
            ConformerLayer(config.width, widths, config.kernel_size, config.dropout)
            for widths in config.layers
        )
        self.project = nn.Linear(config.width, config.joint_width)

    @property
    def blocks(self) -> list[ConformerLayer]:
        """`layers` by their type, which ModuleList does not know."""
        return cast("list[ConformerLayer]", list(self.layers))

    def forward(
        self, features: Tensor, feature_lengths: Tensor, chunk_frames: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """features (B, T, F), feature_lengths (B,) -> encoded (B, S, J), logit_lengths (B,).

        T is padded with digital silence to whole chunks, as a stream's end is; frames beyond an
        utterance's length must hold SILENCE too for the last chunk to equal streaming.
        chunk_frames: of this pass alone; the encoder's own by default.
        """
        hidden, logit_lengths = self.hidden(features, feature_lengths, chunk_frames)
        return self.project(hidden), logit_lengths

    def hidden(
        self, features: Tensor, feature_lengths: Tensor, chunk_frames: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, before the projection to the joiner: (B, S, D)."""
        chunk_frames = chunk_frames or self.chunk_frames
        short = -features.shape[1] % chunk_frames
        frames = self.front.normalise(F.pad(features, (0, 0, 0, short), value=SILENCE))
        x = self.front(F.pad(frames, (0, 0, HISTORY, 0)))
        chunk = chunk_frames // SUBSAMPLING
        logit_lengths = (feature_lengths + SUBSAMPLING - 1) // SUBSAMPLING
        num_valid = (logit_lengths + chunk - 1) // chunk * chunk
        if self.full_context:
            chunk, num_valid = x.shape[1], logit_lengths
        mask = chunk_mask(x.shape[1], num_valid, chunk, self.left_context)
        for layer in self.blocks:
            x = layer(x, mask)
        return x, logit_lengths

    def initial_state(self, num_streams: int) -> State:
        """Normalised frame history, number of cached frames, then keys, values and convolution
        history of each layer; all zero, which means empty."""
        device = self.project.weight.device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(num_streams, *shape, device=device)

        state = [zeros(HISTORY, self.num_mel_bins), zeros(1)]
        for layer in self.blocks:
            width = layer.attention.key.out_features
            state += [zeros(self.left_context, width), zeros(self.left_context, width)]
            convolution = layer.convolution
            state.append(zeros(convolution.depthwise.out_channels, convolution.history))
        return tuple(state)

    def streaming_forward(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """features (N, chunk_frames, F), state -> encoded (N, chunk_frames / 4, J), state.

        Raises InputError for a network of full context.
        """
        if self.full_context:
            raise InputError("a full-context encoder does not stream: train one without")
        history, num_cached = state[:2]
        frames = torch.cat([history, self.front.normalise(features)], dim=1)
        x = self.front(frames)
        chunk = x.shape[1]
        # Column r of the mask is cached frame r - left_context; it exists once enough were seen.
        age = torch.arange(self.left_context, 0, -1, dtype=x.dtype, device=x.device)
        cached = age[None] <= num_cached + 0.5
        mask = hide(F.pad(cached, (0, chunk), value=True)[:, None, None])
        next_state = [frames[:, -HISTORY:], (num_cached + chunk).clamp(max=self.left_context)]
        for index, layer in enumerate(self.blocks):
            x, layer_state = layer.step(x, state[2 + 3 * index : 5 + 3 * index], mask)
            next_state += layer_state
        return self.project(x), tuple(next_state)
