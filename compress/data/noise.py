"""A noise pack, and the augmentation that a training run mixes it into."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from compress.data.augment import AugmentSettings, augment
from compress.data.cuts import read_data, read_samples, split_name


@functools.lru_cache(maxsize=2)
def read_pack(folder: str | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Noises and room impulse responses of a pack, told apart by its splits `noise` and `rir`."""
    if folder is None:
        return [], []
    cuts = list(read_data(folder, labelled=False))
    noises = [read_samples(cut) for cut in cuts if split_name(cut) != "rir"]
    rooms = [read_samples(cut) for cut in cuts if split_name(cut) == "rir"]
    return noises, rooms


@dataclass(frozen=True)
class Augmenter:
    """samples, generator -> augmented samples; cheap to send to a worker process."""

    noise: Path | None = None
    settings: AugmentSettings = field(default_factory=AugmentSettings)

    @property
    def fingerprint(self) -> dict:
        """What the result depends on, for a cache's hash."""
        return {"noise": self.noise and self.noise.name, **asdict(self.settings)}

    def __call__(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noises, rooms = read_pack(self.noise and str(self.noise))
        return augment(samples, rng, noises, rooms, self.settings)
