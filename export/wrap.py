"""The streaming protocol as Python types, and an encoder whose state is two flat tensors.

# Letters: N streams, F mel bins, S encoder frames of a chunk, J joint width.

sherpa-onnx only zero-fills states and passes them on, and every state tensor costs about 5 us a
call, so all caches travel in state0 (1, N, S0) and one value a stream (counters) in state1.
Zero must mean "empty" in the encoder's own state, and stays so here.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from export.errors import ExportError

State = tuple[Tensor, ...]


@runtime_checkable
class Encoder(Protocol):
    """What export/ asks of an encoder; it must also be an nn.Module."""

    chunk_frames: int
    subsampling: int
    num_mel_bins: int

    def __call__(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]: ...

    def initial_state(self, num_streams: int) -> State: ...

    def streaming_forward(self, features: Tensor, state: State) -> tuple[Tensor, State]: ...


@runtime_checkable
class Predictor(Protocol):
    """A stateless predictor: labels (N, context) int64, -1 for nothing, -> (N, J)."""

    context: int

    def __call__(self, labels: Tensor) -> Tensor: ...


class StatefulPredictor(Protocol):
    """One label of each stream (N, 1), h and c (L, N, P) -> (N, J), h, c; zero is empty."""

    def initial_state(self, num_streams: int) -> tuple[Tensor, Tensor]: ...

    def __call__(self, labels: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...


AnyPredictor = Predictor | StatefulPredictor


def is_stateless(predictor: AnyPredictor) -> TypeGuard[Predictor]:
    return hasattr(predictor, "context")


class Joiner(Protocol):
    """encoded (N, J), predicted (N, J) -> logits (N, V)."""

    def __call__(self, encoded: Tensor, predicted: Tensor) -> Tensor: ...


Part = TypeVar("Part")


def freeze(part: Part) -> Part:
    """A copy on the CPU, in float32, ready to run: the caller's module stays as it is."""
    if not isinstance(part, nn.Module):
        raise ExportError(f"{type(part).__name__} is no torch module: export takes nn.Module")
    return cast(Part, copy.deepcopy(part).cpu().float().eval().requires_grad_(False))


def roll_embedding(predictor: Part) -> Part:
    """In place: the predictor's ids with blank, which is 0 in training, moved behind the others.

    Rows 0 (blank), 1, 2 become 1, 2, 0. Raises ExportError for one without an embedding.
    """
    embedding = getattr(predictor, "embedding", None)
    if not isinstance(embedding, nn.Embedding):
        raise ExportError("moving blank to the end needs a predictor with its rows in .embedding")
    embedding.weight.data = embedding.weight.data.roll(-1, 0)
    return predictor


def roll_output(joiner: Part) -> Part:
    """The same for the joiner's last layer, .output."""
    output = getattr(joiner, "output", None)
    if not isinstance(output, nn.Linear):
        raise ExportError("moving blank to the end needs a joiner whose last layer is .output")
    for parameter in output.parameters():
        parameter.data = parameter.data.roll(-1, 0)
    return joiner


@dataclass(frozen=True)
class Group:
    """State tensors (N, ...) that are one block of state0.

    `axis` 2 joins tensors (N, a, w) of the same a to (N, a, sum of w), axis 1 those of the same
    last dimension: one Reshape for the block instead of one for each tensor. None: a flat tensor.
    """

    axis: int | None
    members: tuple[int, ...]
    shape: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(torch.Size(self.shape).numel())

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0].flatten(1) if len(self.shape) > 1 else parts[0]
        assert self.axis is not None
        return torch.cat(list(parts), dim=self.axis).flatten(1)

    def split(self, block: Tensor) -> Sequence[Tensor]:
        if len(self.shape) > 1:
            block = block.reshape(-1, *self.shape)
        if len(self.members) == 1:
            return [block]
        assert self.axis is not None
        return torch.split(block, list(self.widths), dim=self.axis)


def group_shapes(shapes: Sequence[tuple[int, ...]], members: Sequence[int]) -> list[Group]:
    """Groups of per-stream shapes, greedily the largest first.

    Shapes [(32, 8), (32, 9), (5, 14)] give (32, 8 + 9) along axis 2, then (5, 14) alone.
    """
    left = list(members)
    groups = []
    while left:
        shared = Counter(
            (axis, shapes[i][2 - axis]) for i in left if len(shapes[i]) == 2 for axis in (2, 1)
        )
        if not shared:
            groups += [Group(None, (i,), shapes[i], (shapes[i][0],)) for i in left]
            break
        # Of equal counts the smaller dimension: time, which then stays whole.
        axis, same = max(shared, key=lambda key: (shared[key], -key[1]))
        chosen = [i for i in left if len(shapes[i]) == 2 and shapes[i][2 - axis] == same]
        widths = tuple(shapes[i][axis - 1] for i in chosen)
        shape = (same, sum(widths)) if axis == 2 else (sum(widths), same)
        groups.append(Group(axis, tuple(chosen), shape, widths))
        left = [i for i in left if i not in chosen]
    return groups


class StateLayout:
    """Where each tensor of an encoder's state lies in state0 (1, N, S0) and state1 (1, N, S1)."""

    def __init__(self, state: State) -> None:
        """`state` is the encoder's initial state of any number of streams."""
        for tensor in state:
            if tensor.dtype != torch.float32 or tensor.ndim < 2 or bool(tensor.any()):
                raise ExportError(
                    "the encoder's initial state must be zero float32 tensors (N, ...): "
                    f"got {tensor.dtype} {tuple(tensor.shape)}; store state minus its start value"
                )
        if len(state) < 2:
            raise ExportError("the encoder's state needs at least two tensors: split it in two")
        shapes = [tuple(tensor.shape[1:]) for tensor in state]
        # No counter: any tensor will do for state1, which may not be empty.
        small = [i for i, shape in enumerate(shapes) if shape == (1,)] or [len(shapes) - 1]
        self.blocks = (
            group_shapes(shapes, [i for i in range(len(shapes)) if i not in small]),
            group_shapes(shapes, small),
        )
        self.num_tensors = len(shapes)

    @property
    def sizes(self) -> tuple[int, int]:
        """S0, S1: values a stream."""
        return sum(g.size for g in self.blocks[0]), sum(g.size for g in self.blocks[1])

    def pack(self, state: State) -> tuple[Tensor, Tensor]:
        """The encoder's state -> state0, state1."""
        flat = []
        for groups in self.blocks:
            blocks = [group.join([state[i] for i in group.members]) for group in groups]
            flat.append((torch.cat(blocks, dim=1) if len(blocks) > 1 else blocks[0]).unsqueeze(0))
        return flat[0], flat[1]

    def unpack(self, state0: Tensor, state1: Tensor) -> State:
        """state0, state1 -> the encoder's state, its tensors in their own order."""
        state: dict[int, Tensor] = {}
        for flat, groups in zip((state0, state1), self.blocks, strict=True):
            blocks: Sequence[Tensor] = [flat.squeeze(0)]
            if len(groups) > 1:
                blocks = torch.split(blocks[0], [group.size for group in groups], dim=1)
            for group, block in zip(groups, blocks, strict=True):
                state.update(zip(group.members, group.split(block), strict=True))
        return tuple(state[i] for i in range(self.num_tensors))


class EncoderExport(nn.Module):
    """x (N, chunk, F), state0, state1 -> encoder_out (N, S, J), next_state0, next_state1."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = cast(nn.Module, encoder)
        self.layout = StateLayout(encoder.initial_state(1))

    def forward(self, x: Tensor, state0: Tensor, state1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        encoder = cast(Encoder, self.encoder)
        encoded, state = encoder.streaming_forward(x, self.layout.unpack(state0, state1))
        return (encoded, *self.layout.pack(state))
