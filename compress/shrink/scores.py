"""How much a weight or a unit matters: a larger score means keep.

A unit is what can be removed alone: one residual channel, one feed-forward unit, one attention
dimension, one LSTM cell. It owns a slice of several parameters.

    score         of a weight       of a unit, over the slices it owns
    magnitude     w^2               sum of w^2
    taylor        w^2 E[g^2]        sum over parameters of E[(sum w g)^2], arXiv 1906.10771 eq. 8
    activation    w^2 E[x_j^2]      sum over the columns that read it, arXiv 2306.11695 squared
    least_squares as magnitude; layers that lose blocks go by least_squares.py

g, x: gradients and inputs of the steps since the last pruning (evidence.py). Where there were no
steps yet, at a ramp that begins at step 0, every score is magnitude.

# Letters: W units of a group, R what else the parameter has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from compress.shrink.evidence import Evidence

if TYPE_CHECKING:
    from compress.shrink.groups import Axis

Parameters: TypeAlias = Mapping[str, nn.Parameter]


def magnitude(
    parameters: Parameters, axes: Sequence[Axis], width: int, evidence: Evidence | None
) -> Tensor:
    """(W,): the squared L2 norm of everything a unit owns."""
    total = torch.zeros(width)
    for axis in axes:
        total += rows(parameters[axis.parameter].detach(), axis, width).square().sum(1).cpu()
    return total


def taylor(
    parameters: Parameters, axes: Sequence[Axis], width: int, evidence: Evidence | None
) -> Tensor:
    """(W,): how much the loss changes, to first order, when a unit's slice goes to zero; squared
    in each step, then averaged. A parameter without gradient counts nothing."""
    assert evidence
    total = torch.zeros(width)
    for axis in axes:
        squares = evidence.unit_squares(axis.parameter, axis.dim)
        total += 0 if squares is None else squares.cpu()
    return total


def activation(
    parameters: Parameters, axes: Sequence[Axis], width: int, evidence: Evidence | None
) -> Tensor:
    """(W,): how much of what comes next a unit makes: the scores of the columns that read it.

    Nothing reads a dimension of queries or keys by a matrix: the rows that make it count there.
    """
    assert evidence
    reading = [axis for axis in axes if axis.dim == 1 and evidence.knows(axis.parameter)]
    total = torch.zeros(width)
    for axis in reading or axes:
        parameter = parameters[axis.parameter]
        scores = score_weights(axis.parameter, parameter, "activation", evidence)
        total += rows(scores, axis, width).sum(1).cpu()
    return total


SCORES: dict[str, Callable[[Parameters, Sequence[Axis], int, Evidence | None], Tensor]] = {
    "magnitude": magnitude,
    "taylor": taylor,
    "activation": activation,
    "least_squares": magnitude,
}


def score_weights(
    name: str, parameter: Tensor, score: str = "magnitude", evidence: Evidence | None = None
) -> Tensor:
    """Scores of single weights, float32, shaped like `parameter`, which may be a hidden weight.

    What no column reads (biases, norms, embeddings) has x = 1; without a gradient g is 0.
    """
    squares = parameter.detach().float().square()
    if score in ("magnitude", "least_squares") or evidence is None or evidence.empty:
        return squares
    assert evidence.score == score, f"evidence is for {evidence.score}"
    assert score != "taylor" or evidence.weights, "this evidence is of units alone"
    factors = evidence.weight_factors(name)
    if factors is None:
        return squares if score == "activation" else torch.zeros_like(squares)
    return squares * factors


def rows(tensor: Tensor, axis: Axis, width: int) -> Tensor:
    """The parameter seen unit by unit, (W, R); the four gates of an LSTM go into R."""
    units = tensor.movedim(axis.dim, 0).reshape(axis.copies, width, -1)
    return units.transpose(0, 1).reshape(width, -1).float()


def score_units(
    parameters: Parameters,
    axes: Sequence[Axis],
    width: int,
    score: str,
    evidence: Evidence | None = None,
) -> Tensor:
    """Scores of the `width` units that own slices along `axes`, (W,) float32, of mean 1."""
    if evidence is None or evidence.empty:
        score = "magnitude"
    total = SCORES[score](parameters, axes, width, evidence)
    return total / total.mean().clamp_min(torch.finfo(total.dtype).tiny)


def best(scores: Tensor, num_kept: int) -> Tensor:
    """Ascending indices of the `num_kept` largest scores; of equal ones the first.

    >>> best(torch.tensor([1.0, -2.0, 3.0, -4.0]).square(), 2)
    tensor([2, 3])
    """
    return scores.argsort(descending=True, stable=True)[:num_kept].sort().values
