"""The joiner over the whole lattice, without ever holding (B, T, U+1, V).

# Letters: B utterances, T encoder frames, U labels, V tokens incl. blank, J joint width.

Only two numbers a node are needed: log P(blank) and log P(next label). They are taken slice by
slice over T; a slice's logits are dropped at once and recomputed in backward, so memory is
O(B * slice * U * V + B * T * U).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from compress.models.predictors import BLANK

# Nodes whose logits are alive at once, for V = 256 in float32 about 32 MB.
NODES_PER_SLICE = 32_768


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
    ) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(encoded.dtype, torch.float32)
        log_blank = encoded.new_empty(*encoded.shape[:2], predicted.shape[1], dtype=exact)
        log_emit = torch.empty_like(log_blank)
        for part in frame_slices(encoded, predicted):
            _, logits = joint_logits(encoded[:, part], predicted, weight, bias)
            total = logits.logsumexp(-1)
            log_blank[:, part] = logits[..., BLANK] - total
            log_emit[:, part] = gather_labels(logits, labels) - total
        ctx.save_for_backward(encoded, predicted, weight, bias, labels, log_blank)
        return log_blank, log_emit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_blank: Tensor, grad_emit: Tensor) -> tuple:
        encoded, predicted, weight, bias, labels, log_blank = ctx.saved_tensors
        grad_encoded = torch.empty_like(encoded)
        grad_predicted = torch.zeros_like(predicted, dtype=log_blank.dtype)
        grad_weight = torch.zeros_like(weight, dtype=log_blank.dtype)
        grad_bias = torch.zeros_like(bias, dtype=log_blank.dtype)
        for part in frame_slices(encoded, predicted):
            hidden, logits = joint_logits(encoded[:, part], predicted, weight, bias)
            total = logits[..., BLANK] - log_blank[:, part]
            grad_sum = (grad_blank[:, part] + grad_emit[:, part]).unsqueeze(-1)
            grad_logits = logits.sub_(total.unsqueeze(-1)).exp_().mul_(-grad_sum)
            grad_logits[..., BLANK] += grad_blank[:, part]
            index = expand_labels(labels, logits)
            grad_logits.scatter_add_(-1, index, grad_emit[:, part].unsqueeze(-1))
            grad_bias += grad_logits.sum((0, 1, 2))
            grad_logits = grad_logits.to(weight.dtype)
            grad_weight += grad_logits.flatten(0, 2).T @ hidden.flatten(0, 2)
            grad_hidden = (grad_logits @ weight) * (1 - hidden * hidden)
            grad_encoded[:, part] = grad_hidden.sum(2)
            grad_predicted += grad_hidden.sum(1)
        return (
            grad_encoded,
            grad_predicted.to(predicted.dtype),
            grad_weight.to(weight.dtype),
            grad_bias.to(bias.dtype),
            None,
        )


def frame_slices(encoded: Tensor, predicted: Tensor) -> list[slice]:
    """Slices over T that hold about NODES_PER_SLICE nodes each."""
    num_frames = encoded.shape[1]
    step = max(1, NODES_PER_SLICE // (encoded.shape[0] * predicted.shape[1]))
    return [slice(start, start + step) for start in range(0, num_frames, step)]


def joint_logits(
    encoded: Tensor, predicted: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """(B, t, J), (B, U+1, J) -> hidden (B, t, U+1, J), logits (B, t, U+1, V) float32 or double."""
    hidden = torch.tanh(encoded.unsqueeze(2) + predicted.unsqueeze(1))
    logits = F.linear(hidden, weight, bias)
    return hidden, logits.float() if logits.dtype == torch.bfloat16 else logits


def expand_labels(labels: Tensor, logits: Tensor) -> Tensor:
    return labels[:, None, :, None].expand(-1, logits.shape[1], -1, 1)


def gather_labels(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(-1, expand_labels(labels, logits)).squeeze(-1)


def joint_log_probs(
    encoded: Tensor, predicted: Tensor, output: nn.Linear, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """log_blank (B, T, U+1) and log_emit (B, T, U), float32, differentiable.

    encoded (B, T, J), predicted (B, U+1, J), `output` the joiner's Linear(J, V), targets (B, U)
    padded with 0. Under bfloat16 autocast the products run in bfloat16, the softmax in float32.
    """
    device = encoded.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    tensors = [encoded, predicted, output.weight, output.bias]
    if dtype is not None:
        tensors = [tensor.to(dtype) for tensor in tensors]
    log_blank, log_emit = _SlicedJoint.apply(*tensors, next_labels(targets))
    return log_blank, log_emit[:, :, :-1]
