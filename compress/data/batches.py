"""Batches of about equal audio, drawn from several stores by share; deterministic, resumable.

# Letters: B utterances, T frames, U labels, F mel bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from compress.data.store import NO_PHONE, FeatureStore, Row
from compress.data.tokenizer import Tokenizer
from streaming.features import SILENCE


@dataclass
class Batch:
    """features (B, T, F) padded with SILENCE, targets (B, U) padded with 0, phones (B, T)."""

    features: Tensor
    feature_lengths: Tensor
    targets: Tensor
    target_lengths: Tensor
    phones: Tensor
    rows: list[Row]


@dataclass
class Source:
    """A store, how large a share of the steps draws from it, and from which step on."""

    store: FeatureStore
    share: float = 1.0
    from_step: int = 0


@dataclass(frozen=True)
class BatchSettings:
    """`tail_frames` of silence follow every utterance, as a finished stream feeds them."""

    seconds: float = 60.0
    tail_frames: int = 32
    time_masks: int = 2
    time_mask_frames: int = 12
    mel_masks: int = 2
    mel_mask_bins: int = 10


@dataclass
class BatchSampler:
    """An endless sequence of batches; the same seed gives the same, from any step.

    first_step: batches that an earlier stage had; steps count on from there.
    """

    sources: list[Source]
    tokenizer: Tokenizer
    settings: BatchSettings
    seed: int = 0
    augment: bool = True
    first_step: int = 0
    _targets: dict[str, list[int]] = field(default_factory=dict)

    def from_step(self, step: int) -> Iterator[Batch]:
        """Batches from number `step` on: what came before is drawn again, but not read."""
        order = np.random.default_rng([self.seed, 1])
        epochs = [self._epochs(index) for index in range(len(self.sources))]
        number = 0
        while True:
            shares = np.array(
                [source.share * (number >= source.from_step) for source in self.sources]
            )
            chosen = order.choice(len(epochs), p=shares / shares.sum())
            rows = next(epochs[chosen])
            if number >= self.first_step + step:
                yield self.collate(self.sources[chosen].store, rows, number)
            number += 1

    def _epochs(self, index: int) -> Iterator[list[Row]]:
        store = self.sources[index].store
        frames = round(self.settings.seconds / 0.01)
        for epoch in range(2**31):
            yield from bucket(
                store.rows, frames, np.random.default_rng([self.seed, 2, index, epoch])
            )

    def collate(self, store: FeatureStore, rows: list[Row], number: int = 0) -> Batch:
        """Read the rows' features, mask them if augmenting, pad."""
        rng = np.random.default_rng([self.seed, 3, number])
        tail = self.settings.tail_frames
        lengths = [row.num_frames + tail for row in rows]
        shape = len(rows), max(lengths)
        features = np.full((*shape, store.num_mel_bins), SILENCE, np.float32)
        phones = np.full(shape, NO_PHONE, np.uint8)
        targets = [self.targets(row.text) for row in rows]
        padded = np.zeros((len(rows), max(1, *map(len, targets))), np.int64)
        for index, row in enumerate(rows):
            view = features[index, : row.num_frames]
            view[:] = store.features(row)
            phones[index, : row.num_frames] = store.phones(row)
            padded[index, : len(targets[index])] = targets[index]
            if self.augment:
                mask_(view, self.settings, rng)
        return Batch(
            torch.from_numpy(features),
            torch.tensor(lengths),
            torch.from_numpy(padded),
            torch.tensor([len(labels) for labels in targets]),
            torch.from_numpy(phones),
            rows,
        )

    def targets(self, text: str) -> list[int]:
        if text not in self._targets:
            self._targets[text] = self.tokenizer.encode(text)
        return self._targets[text]


def bucket(rows: list[Row], frames: int, rng: np.random.Generator | None = None) -> list[list[Row]]:
    """Rows of like length in batches of at most `frames` padded frames.

    With `rng` in random order, and lengths are jittered by a tenth before sorting, so that
    batches differ between epochs; without it from the shortest to the longest.
    """
    keys = [row.num_frames * (rng.uniform(0.9, 1.1) if rng else 1.0) for row in rows]
    batches: list[list[Row]] = [[]]
    longest = 0
    for index in np.argsort(keys):
        row = rows[index]
        longest = max(longest, row.num_frames)
        if batches[-1] and longest * (len(batches[-1]) + 1) > frames:
            batches.append([])
            longest = row.num_frames
        batches[-1].append(row)
    order = rng.permutation(len(batches)) if rng else range(len(batches))
    return [batches[index] for index in order]


def mask_(features: np.ndarray, settings: BatchSettings, rng: np.random.Generator) -> None:
    """SpecAugment (arXiv 1904.08779) on one utterance (T, F), in place, with its own mean."""
    num_frames, num_bins = features.shape
    fill = features.mean()
    for _ in range(settings.time_masks):
        width = int(rng.integers(0, min(settings.time_mask_frames, num_frames // 8) + 1))
        start = int(rng.integers(0, num_frames - width + 1))
        features[start : start + width] = fill
    for _ in range(settings.mel_masks):
        width = int(rng.integers(0, settings.mel_mask_bins + 1))
        start = int(rng.integers(0, num_bins - width + 1))
        features[:, start : start + width] = fill
