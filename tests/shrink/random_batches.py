"""Noise in the place of speech, for trainings of a few steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from compress.data.batches import Batch


def random_batch(step: int) -> Batch:
    """Three utterances of 240 ms with four labels below 23; the same for the same step."""
    generator = torch.Generator().manual_seed(step)
    features = torch.randn(3, 24, 80, generator=generator) * 4 - 6
    targets = torch.randint(1, 23, (3, 4), generator=generator)
    lengths, target_lengths = torch.full((3,), 24), torch.full((3,), 4)
    return Batch(features, lengths, targets, target_lengths, torch.zeros(3, 24), [])


class RandomBatches:
    """In a sampler's place."""

    def from_step(self, step: int) -> Iterator[Batch]:
        return (random_batch(number) for number in itertools.count(step))
