"""A dozen synthetic utterances to train on, and what the tests of export hear."""

from __future__ import annotations

import numpy as np
import pytest

from compress.data.batches import BatchSampler, BatchSettings, Source
from compress.data.store import build_store
from compress.data.synthetic import make_synthetic
from streaming.features import FeatureSettings, compute_features
from tests.export.conftest import make_speech
from tests.tiny_teacher import build_tokenizer


@pytest.fixture(scope="session")
def sampler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    cuts = list(make_synthetic(folder, 12, "train", 0, num_workers=1))
    store = build_store(folder, "speech", cuts, num_workers=1)
    settings = BatchSettings(seconds=6.0, tail_frames=8)
    return BatchSampler([Source(store)], build_tokenizer(), settings, augment=False)


@pytest.fixture(scope="session")
def features() -> list[np.ndarray]:
    speech = [make_speech(length, seed) for seed, length in enumerate([24000, 31234, 12001])]
    return [compute_features(samples, FeatureSettings()) for samples in speech]
