"""The best path of one utterance, found by trying them all."""

from __future__ import annotations

from torch import Tensor

from tests.reference.paths import enumerate_paths, path_score


def best_nodes(log_blank: Tensor, log_emit: Tensor) -> list[tuple[int, int]]:
    """log_blank (T, U+1), log_emit (T, U) -> the T+U nodes (t, u) of the likeliest path."""
    paths = enumerate_paths(log_blank.shape[0], log_emit.shape[1])
    path = max(paths, key=lambda moves: float(path_score(moves, log_blank, log_emit)))
    return [(t, u) for t, u, _ in path]


def nodes_score(nodes: list[tuple[int, int]], log_blank: Tensor, log_emit: Tensor) -> float:
    """log probability of a path given by its nodes; the move follows from the next node."""
    total = 0.0
    for (t, u), (_, after) in zip(nodes, [*nodes[1:], nodes[-1]], strict=True):
        total += float(log_emit[t, u] if after > u else log_blank[t, u])
    return total
