"""Slow twin of compress/shrink/least_squares.py: every candidate is tried by solving for it."""

from __future__ import annotations

import torch
from torch import Tensor


def fit_columns(outputs: Tensor, moments: Tensor, taken: list[int]) -> tuple[Tensor, float]:
    """Weights (G, len(taken)) that come nearest to outputs (G, C) from these inputs, and what is
    left: sum over rows of (w - v)' moments (w - v)."""
    fitted = outputs.new_zeros(outputs.shape)
    if taken:
        among = moments[taken][:, taken]
        fitted[:, taken] = torch.linalg.solve(among, (outputs @ moments)[:, taken].T).T
    missing = outputs - fitted
    return fitted[:, taken], float(((missing @ moments) * missing).sum())


def fit_block(outputs: Tensor, moments: Tensor, num_columns: int, picks: int) -> Tensor:
    """(G, C) -> (G, C) with `num_columns` columns: in each round the `picks` inputs are taken that
    would each leave least beside those taken before."""
    taken: list[int] = []
    while len(taken) < num_columns:
        others = [column for column in range(outputs.shape[1]) if column not in taken]
        left = {each: fit_columns(outputs, moments, [*taken, each])[1] for each in others}
        taken += sorted(left, key=lambda column: left[column])[
            : min(picks, num_columns - len(taken))
        ]
    result = torch.zeros_like(outputs)
    result[:, taken] = fit_columns(outputs, moments, taken)[0]
    return result
