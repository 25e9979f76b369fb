"""Intervals over seeds and utterances: each replication draws both with replacement.

They are therefore as wide as three seeds make them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

REPLICATIONS = 4000
Interval = tuple[float, float, float]


def resample(seeds: int, utterances: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Seeds drawn, and how often each utterance was, of every replication."""
    rng = np.random.default_rng(0)
    for _ in range(REPLICATIONS):
        rows = rng.integers(seeds, size=seeds)
        yield rows, np.bincount(rng.integers(utterances, size=utterances), minlength=utterances)


def pooled(errors: np.ndarray, words: np.ndarray) -> Interval:
    """WER over seeds and its 95 % interval; errors (seeds, utterances), words (utterances,)."""
    draws = [
        (errors[rows] @ weights).sum() / (len(errors) * (words @ weights))
        for rows, weights in resample(*errors.shape)
    ]
    return with_interval(errors.sum() / (len(errors) * words.sum()), draws)


def relative_reduction(without: np.ndarray, with_: np.ndarray) -> Interval:
    """Of the word errors, with its 95 % interval, the same draws for both (seeds, utterances)."""
    draws = []
    for rows, weights in resample(*without.shape):
        before, after = (float((part[rows] @ weights).sum()) for part in (without, with_))
        draws.append(1 - after / max(before, 1.0))
    return with_interval(1 - with_.sum() / max(without.sum(), 1), draws)


def with_interval(value: float, draws: list[float]) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(value), float(low), float(high)
