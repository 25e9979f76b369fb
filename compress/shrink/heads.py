"""What pruning attention needs beyond the graph: pairs of dimensions, and the softmax's scale.

The graph couples dimension i of a head's queries and keys with dimension i of its values, though
nothing but the shared head_dim ties them.

# Letters: H heads, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from compress.models.encoders.conformer import Attention
from compress.shrink.evidence import Evidence
from compress.shrink.groups import Axis
from compress.shrink.scores import score_units


def align_heads(
    twin: Attention,
    parameters: Mapping[str, nn.Parameter],
    axes: Sequence[Axis],
    score: str,
    evidence: Evidence | None = None,
) -> Tensor:
    """Reorder the twin's values so that the best meet the best queries; scores (H * d,) of pairs.

    Reordering values and the columns of `out` alike changes no output, and removing pair i then
    removes the i-th worst of both instead of a good value with a bad query.
    """
    heads = (twin.num_heads, twin.head_dim)
    values = [axis for axis in axes if ".value." in axis.parameter or ".out." in axis.parameter]
    queries = [axis for axis in axes if axis not in values]
    query_scores, value_scores = (
        score_units(parameters, part, math.prod(heads), score, evidence).reshape(heads)
        for part in (queries, values)
    )
    order = best_partners(query_scores, value_scores)
    twin.value.weight.data = twin.value.weight.data[order]
    twin.value.bias.data = twin.value.bias.data[order]
    twin.out.weight.data = twin.out.weight.data[:, order]
    return query_scores.flatten() + value_scores.flatten()[order]


def best_partners(query_scores: Tensor, value_scores: Tensor) -> Tensor:
    """(H, d) scores -> (H * d,): the value dimension that goes to each query dimension.

    >>> best_partners(torch.tensor([[1.0, 5.0, 3.0]]), torch.tensor([[9.0, 7.0, 8.0]]))
    tensor([1, 0, 2])
    """
    by_query = query_scores.argsort(dim=1, descending=True, stable=True)
    by_value = value_scores.argsort(dim=1, descending=True, stable=True)
    order = torch.empty_like(by_query).scatter_(1, by_query, by_value)
    first = torch.arange(len(order))[:, None] * order.shape[1]
    return (order + first).flatten()


def query_scales(model: nn.Module, twin: nn.Module) -> dict[str, float]:
    """Factors that keep q k / sqrt(d) the same when d becomes smaller, per parameter name."""
    scales = {}
    for name, attention in model.named_modules():
        if isinstance(attention, Attention):
            head_dim = cast(Attention, twin.get_submodule(name)).head_dim
            scale = math.sqrt(head_dim / attention.head_dim)
            scales[f"{name}.query.weight"] = scales[f"{name}.query.bias"] = scale
    return scales
