"""The joiner over the whole lattice, without ever holding (B, T, U+1, V).

# Letters: B utterances, T encoder frames, U labels, V tokens incl. blank, J joint width.

Only two numbers a node are needed: log P(blank) and log P(next label). They are taken slice by
slice; a slice's logits are dropped at once and recomputed in backward, so memory is
O(slice + B * T * U) instead of O(B * T * U * V).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from compress.models.predictors import BLANK

# Logits alive at once. 2 MB in float32 stay in a processor's cache and take 0.8 of the time of one
# slice of 16 MB (V = 256); a GPU wants few large products. bench/LOG.md has what else was tried.
LOGITS_PER_SLICE = {"cpu": 2**19, "cuda": 2**25}

Part = tuple[slice, slice]  # utterances, frames
Rounding = Callable[[Tensor], Tensor]  # of what the joiner's last layer reads; None for none


def next_labels(targets: Tensor) -> Tensor:
    """targets (B, U), 0 where padded -> (B, U+1): the label that row u emits next.

    The last row and padding get label 1, never blank: their value is unused, but gathering blank
    there would let a wrong mask pass unnoticed.
    """
    return F.pad(targets, (0, 1), value=BLANK).clamp(min=BLANK + 1)


class _SlicedJoint(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        encoded: Tensor,
        predicted: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        rounding: Rounding | None,
    ) -> tuple[Tensor, Tensor]:
        joint = encoded, predicted, weight, bias
        log_blank = encoded.new_empty(*encoded.shape[:2], predicted.shape[1], dtype=exact(encoded))
        log_emit = torch.empty_like(log_blank)
        for part in lattice_parts(*joint):
            _, logits = joint_logits(part, *joint, rounding=rounding)
            log_probs = logits.log_softmax(-1, dtype=log_blank.dtype)
            log_blank[part] = log_probs[..., BLANK]
            index = expand_labels(labels[part[0]], logits)
            log_emit[part] = log_probs.gather(-1, index).squeeze(-1)
        ctx.save_for_backward(*joint, labels)
        ctx.rounding = rounding
        return log_blank, log_emit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_blank: Tensor, grad_emit: Tensor) -> tuple:
        *joint, labels = ctx.saved_tensors
        gradient = JointGradient(*joint, rounding=ctx.rounding)
        for part in lattice_parts(*joint):
            hidden, logits = joint_logits(part, *joint, rounding=ctx.rounding)
            grad_sum = (grad_blank[part] + grad_emit[part]).unsqueeze(-1)
            grad_logits = logits.softmax(-1, dtype=grad_sum.dtype).mul_(-grad_sum)
            grad_logits[..., BLANK] += grad_blank[part]
            index = expand_labels(labels[part[0]], logits)
            grad_logits.scatter_add_(-1, index, grad_emit[part].unsqueeze(-1))
            gradient.add(part, hidden, grad_logits)
        return *gradient.tensors(), None, None


class JointGradient:
    """Gradients of encoded, predicted, weight and bias, added up over the parts of a lattice.

    Rounding, which leaves tanh's range as it is, has the gradient of doing nothing.
    """

    def __init__(
        self,
        encoded: Tensor,
        predicted: Tensor,
        weight: Tensor,
        bias: Tensor,
        *,
        rounding: Rounding | None = None,
    ) -> None:
        self.weight = weight
        self.rounding = rounding
        self.sums = [
            torch.zeros_like(tensor, dtype=exact(encoded))
            for tensor in (encoded, predicted, weight, bias)
        ]

    def add(self, part: Part, hidden: Tensor, grad_logits: Tensor) -> None:
        """hidden (b, t, U+1, J) and grad_logits (b, t, U+1, V) of one part; hidden is spent."""
        encoded, predicted, weight, bias = self.sums
        bias += grad_logits.sum((0, 1, 2))
        grad_logits = grad_logits.to(self.weight.dtype)
        inputs = (self.rounding(hidden) if self.rounding else hidden).to(self.weight.dtype)
        weight += grad_logits.flatten(0, 2).T @ inputs.flatten(0, 2)
        grad_hidden = hidden.square_().neg_().add_(1).mul_(grad_logits @ self.weight)
        encoded[part] += grad_hidden.sum(2)
        predicted[part[0]] += grad_hidden.sum(1)

    def tensors(self) -> list[Tensor]:
        """As the inputs' type wants them."""
        return [total.to(self.weight.dtype) for total in self.sums]


def exact(encoded: Tensor) -> torch.dtype:
    """The type of sums and softmaxes: float32, or float64 of float64."""
    return torch.promote_types(encoded.dtype, torch.float32)


def lattice_parts(encoded: Tensor, predicted: Tensor, weight: Tensor, bias: Tensor) -> list[Part]:
    """Parts of (B, T) whose nodes have about LOGITS_PER_SLICE logits, at least a frame each."""
    (num_utterances, num_frames), num_rows = encoded.shape[:2], predicted.shape[1]
    budget = LOGITS_PER_SLICE[encoded.device.type]
    frames = max(1, budget // (num_rows * max(weight.shape)))
    frame_step = max(1, frames // num_utterances)
    batch_step = min(num_utterances, frames)
    return [
        (slice(row, row + batch_step), slice(frame, frame + frame_step))
        for row in range(0, num_utterances, batch_step)
        for frame in range(0, num_frames, frame_step)
    ]


def joint_logits(
    part: Part,
    encoded: Tensor,
    predicted: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    rounding: Rounding | None = None,
) -> tuple[Tensor, Tensor]:
    """hidden (b, t, U+1, J) float32 or double, logits (b, t, U+1, V) of the inputs' type, of hidden
    or of what `rounding` makes of it.

    tanh(x) is 2 sigmoid(2x) - 1, within 2e-7: torch's float32 sigmoid takes a tenth of the time
    of its tanh on a CPU, and tanh was a third of a V = 256 lattice's forward pass.
    """
    twice = 2 * encoded[part].to(exact(encoded))
    hidden = twice.unsqueeze(2) + 2 * predicted[part[0]].unsqueeze(1)
    hidden = hidden.sigmoid_().mul_(2).sub_(1)
    read = rounding(hidden) if rounding else hidden
    return hidden, F.linear(read.to(weight.dtype), weight, bias)


def expand_labels(labels: Tensor, logits: Tensor) -> Tensor:
    return labels[:, None, :, None].expand(-1, logits.shape[1], -1, 1)


def in_autocast(*tensors: Tensor) -> list[Tensor]:
    """The tensors in autocast's type where autocast is on: a Function's forward runs without it."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    return [tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors]


def joint_log_probs(
    encoded: Tensor, predicted: Tensor, output: nn.Linear, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """log_blank (B, T, U+1) and log_emit (B, T, U), float32, differentiable.

    encoded (B, T, J), predicted (B, U+1, J), `output` the joiner's Linear(J, V), targets (B, U)
    padded with 0. Under bfloat16 autocast the products run in bfloat16, the softmax in float32.
    An output with a `rounding` reads what that makes of the tanh (compress/quantize/twin.py).
    """
    joint = in_autocast(encoded, predicted, output.weight, output.bias)
    rounding = getattr(output, "rounding", None)
    log_blank, log_emit = _SlicedJoint.apply(*joint, next_labels(targets), rounding)
    return log_blank, log_emit[:, :, :-1]
