"""How much a unit matters: a larger score means keep.

A unit is what can be removed alone: one residual channel, one feed-forward unit, one attention
dimension, one LSTM cell. It owns a slice of several parameters, and its score is the sum over
those slices.

# Letters: W units of a group, R what else the parameter has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from compress.shrink.groups import Axis


def magnitude(slices: Tensor, gradient: Tensor | None) -> Tensor:
    """(W, R) weights -> (W,): the squared L2 norm of each row."""
    return slices.square().sum(1)


def taylor(slices: Tensor, gradient: Tensor | None) -> Tensor:
    """(W, R) weights and gradients -> (W,): (sum_R w g)^2, arXiv 1906.10771 eq. 8.

    The square of the loss's first-order change when the whole row goes to zero.
    """
    if gradient is None:
        raise ValueError("the taylor score needs gradients: call backward() before prune_to()")
    return (slices * gradient).sum(1).square()


SCORES: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "magnitude": magnitude,
    "taylor": taylor,
}


def rows(tensor: Tensor, axis: Axis, width: int) -> Tensor:
    """The parameter seen unit by unit, (W, R); the four gates of an LSTM go into R."""
    units = tensor.movedim(axis.dim, 0).reshape(axis.copies, width, -1)
    return units.transpose(0, 1).reshape(width, -1).float()


def score_units(
    parameters: Mapping[str, nn.Parameter], axes: Sequence[Axis], width: int, score: str
) -> Tensor:
    """Scores of the `width` units that own slices along `axes`, (W,) float32, of mean 1."""
    total = torch.zeros(width)
    for axis in axes:
        parameter = parameters[axis.parameter]
        gradient = None if parameter.grad is None else rows(parameter.grad, axis, width)
        total += SCORES[score](rows(parameter.detach(), axis, width), gradient).cpu()
    return total / total.mean().clamp_min(torch.finfo(total.dtype).tiny)


def best(scores: Tensor, num_kept: int) -> Tensor:
    """Ascending indices of the `num_kept` largest scores; of equal ones the first.

    >>> best(torch.tensor([1.0, -2.0, 3.0, -4.0]).square(), 2)
    tensor([2, 3])
    """
    return scores.argsort(descending=True, stable=True)[:num_kept].sort().values
