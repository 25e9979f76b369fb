"""What onnxruntime's integers make of a tensor, in float32 and with a gradient.

    input    uint8, q = clip(round(x / s) + z, 0, 255), x^ = s (q - z); s and z from a range low ..
             high that holds 0; each as export/sparse_int8.py's input_scale has it
    in call  the same of every call's own range: what an int8 LSTM multiplies
    rows     int8, a scale for each output row: its largest weight is 127 (row_scales)
    bias     int32 in steps of input times weight, where export writes a Gemm (static.py)
    table    uint8 over the range of the whole matrix: an embedding (onnxruntime's GatherQuant)
    half     float16: a convolution

Rounding has the gradient of doing nothing (straight through, arXiv 1308.3432). The ends of a range
have that of LSQ+ (2004.09576), written for the ends instead of for s and z:

    d x^ / d high = (round(x/s) - x/s) / 255    inside    1 above    0 below
    d x^ / d low  = the same, negative          inside    0 above    1 below

# Letters: P outputs, K inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from export.quantize.static import LARGEST_BIAS
from export.sparse_int8 import LARGEST, STEPS

SMALLEST = 1e-30  # a scale, of a row that holds nothing but its bias


def input_grid(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point, float32, of ranges of any shape; to the bit those of input_scale."""
    scale = ((high.double() - low.double()) / STEPS).float()
    scale = torch.where(scale > 0, scale, 1.0)
    return scale, (-low / scale).round()


class _RoundInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        scale, zero = input_grid(low, high)
        steps = x / scale
        ctx.save_for_backward(steps, zero)
        return steps.round().add_(zero).clamp_(0, STEPS).sub_(zero).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        steps, zero = ctx.saved_tensors
        rounded = steps.round()
        below, above = rounded < -zero, rounded > STEPS - zero
        through = grad.masked_fill(below | above, 0.0)
        inside = rounded.sub_(steps).mul_(through).sum() / STEPS
        return through, (grad * below).sum() - inside, (grad * above).sum() + inside


def round_input(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x of any shape, rounded to 256 levels of low .. high, low <= 0 <= high; always in float32.

    Range (-1, 1.55) has steps of 0.01: 0.126 becomes 0.13, 2 becomes 1.55.
    """
    with torch.autocast(x.device.type, enabled=False):
        rounded: Tensor = _RoundInput.apply(x.float(), low, high)
    return rounded


def round_tanh(hidden: Tensor) -> Tensor:
    """round_input() by the range -1 .. 1 of values that are inside it; without a gradient."""
    scale, zero = input_grid(*hidden.new_tensor([-1.0, 1.0]))
    return hidden.div(scale).round_().clamp_(max=float(STEPS - zero)).mul_(scale)


def round_in_call(x: Tensor, num_axes: int) -> Tensor:
    """x rounded by the range of its values, and 0, over all but the first `num_axes` axes."""
    with torch.no_grad():
        flat = x.flatten(num_axes)
        ends = flat.amin(-1).clamp_max(0.0), flat.amax(-1).clamp_min(0.0)
        shape = *x.shape[:num_axes], *[1] * (x.ndim - num_axes)
        scale, zero = (part.reshape(shape) for part in input_grid(*ends))
        levels = ((x / scale).round() + zero).clamp(0, STEPS)
        rounded = (levels - zero) * scale
    return straight_through(x, rounded)


class _Straight(torch.autograd.Function):
    """`rounded` forward, the gradient to `x`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return grad, None


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    result: Tensor = _Straight.apply(x, rounded.detach())
    return result


def row_scales(weight: Tensor) -> Tensor:
    """(P, K) -> (P, 1): the largest weight of a row is 127; 1 for a row of zeros."""
    largest = weight.detach().float().abs().amax(1, keepdim=True) / LARGEST
    return torch.where(largest > 0, largest, 1.0)


def round_rows(weight: Tensor, scales: Tensor | None = None) -> Tensor:
    """(P, K) with `scales` (P, 1), row_scales by default; zeros stay zeros."""
    with torch.no_grad():
        scales = row_scales(weight) if scales is None else scales
        rounded = (weight.float() / scales).round().clamp(-LARGEST, LARGEST) * scales
    return straight_through(weight, rounded)


def round_gemm(weight: Tensor, bias: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (P, K) and bias (P,) of a layer whose input has the scale `step`.

    The bias is a number of steps of input times weight, of which an int32 must hold enough: that
    bounds the scales of a row from below.
    """
    with torch.no_grad():
        smallest = bias.abs().max() / (step * LARGEST_BIAS)
        scales = row_scales(weight).maximum(smallest)
        filled = weight.ne(0).any(1, keepdim=True)
        scales = torch.where(filled, scales, smallest.clamp_min(SMALLEST))
        steps = step * scales[:, 0]
        rounded = (bias / steps).round() * steps
    return round_rows(weight, scales), straight_through(bias, rounded)


def round_table(weight: Tensor) -> Tensor:
    """A matrix of any shape to 256 levels from its smallest to its largest value, and 0."""
    return round_in_call(weight, 0)


def round_half(weight: Tensor) -> Tensor:
    """Any weight to float16 and back."""
    return straight_through(weight, weight.detach().half().float())
