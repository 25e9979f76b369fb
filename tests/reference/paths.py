"""Every path of a transducer lattice, enumerated. For T <= 5 and U <= 4."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

Move = tuple[int, int, bool]  # frame, labels emitted so far, whether the move emits


def enumerate_paths(num_frames: int, num_labels: int) -> Iterator[list[Move]]:
    """All orders of U emissions and T blanks that end with a blank."""
    steps = num_frames + num_labels
    for emitting in combinations(range(steps - 1), num_labels):
        t = u = 0
        path = []
        for step in range(steps):
            emits = step in emitting
            path.append((t, u, emits))
            t, u = (t, u + 1) if emits else (t + 1, u)
        yield path


def path_score(path: list[Move], log_blank: Tensor, log_emit: Tensor) -> Tensor:
    return sum(log_emit[t, u] if emits else log_blank[t, u] for t, u, emits in path)


def log_likelihood(log_blank: Tensor, log_emit: Tensor) -> Tensor:
    """log P(y|x) of one utterance: log_blank (T, U+1), log_emit (T, U)."""
    paths = enumerate_paths(log_blank.shape[0], log_emit.shape[1])
    return torch.logsumexp(
        torch.stack([path_score(path, log_blank, log_emit) for path in paths]), 0
    )


def node_posteriors(log_blank: Tensor, log_emit: Tensor) -> Tensor:
    """(T, U+1): the share of all path probability that passes each node."""
    total = log_likelihood(log_blank, log_emit)
    visits = torch.zeros_like(log_blank)
    for path in enumerate_paths(log_blank.shape[0], log_emit.shape[1]):
        weight = (path_score(path, log_blank, log_emit) - total).exp()
        for t, u, _ in path:
            visits[t, u] += weight
    return visits
