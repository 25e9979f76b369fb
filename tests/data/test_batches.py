"""Batches: the same from any step, drawn by share, padded with silence, of bounded size."""

from __future__ import annotations

import json
from itertools import chain, islice

import numpy as np
import pytest
import torch

from compress.data.batches import BatchSampler, BatchSettings, Source, bucket, mask_
from compress.data.store import NO_PHONE, FeatureStore
from streaming.features import SILENCE
from tests.tiny_teacher import build_tokenizer

SETTINGS = BatchSettings(seconds=2.0, tail_frames=8)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return [write_store(tmp_path_factory.mktemp(name), name, 30) for name in ("one", "two")]


def write_store(folder, name, num_rows):
    """Utterances of 30 to 99 random frames and random phones."""
    rng = np.random.default_rng(len(name) + num_rows)
    rows, start = [], 0
    for index in range(num_rows):
        num_frames = int(rng.integers(30, 100))
        words = rng.choice(["one", "two", "three", "light"], size=int(rng.integers(1, 4)))
        row = {"id": f"{name}-{index}", "text": " ".join(words), "speaker": "ann", "data": name}
        rows.append({**row, "start": start, "num_frames": num_frames})
        start += num_frames
    rng.normal(-5, 1, (start, 80)).astype(np.float16).tofile(folder / "features.f16")
    rng.integers(0, 40, start).astype(np.uint8).tofile(folder / "phones.u8")
    (folder / "index.json").write_text(json.dumps({"num_mel_bins": 80, "rows": rows}))
    return FeatureStore(folder)


def draw(sampler, step, num):
    return list(islice(sampler.from_step(step), num))


def names(batch):
    return [row.id for row in batch.rows]


def same(one, other):
    return names(one) == names(other) and all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("features", "feature_lengths", "targets", "target_lengths", "phones")
    )


def test_same_batches_from_any_step(stores, tokenizer):
    sources = [Source(stores[0], 0.7), Source(stores[1], 0.3, from_step=5)]
    whole = draw(BatchSampler(sources, tokenizer, SETTINGS, seed=3), 0, 40)
    for step in (0, 1, 5, 33):
        later = draw(BatchSampler(sources, tokenizer, SETTINGS, seed=3), step, 40 - step)
        assert all(map(same, whole[step:], later))
    other = draw(BatchSampler(sources, tokenizer, SETTINGS, seed=4), 0, 40)
    assert not any(map(same, whole, other))


def test_an_epoch_has_every_utterance_once_and_no_two_epochs_are_alike(stores, tokenizer):
    sampler = BatchSampler([Source(stores[0])], tokenizer, SETTINGS)
    everything = sorted(row.id for row in stores[0].rows)
    epochs, epoch = [], []
    for batch in sampler.from_step(0):
        epoch.append(names(batch))
        if sum(map(len, epoch)) == len(everything):
            assert sorted(chain(*epoch)) == everything
            epochs.append(epoch)
            epoch = []
        if len(epochs) == 3:
            break
    assert epochs[0] != epochs[1] != epochs[2]


def test_shares_and_the_step_they_begin(stores, tokenizer):
    sources = [Source(stores[0], 1.0), Source(stores[1], 3.0, from_step=20)]
    drawn = [
        batch.rows[0].data for batch in draw(BatchSampler(sources, tokenizer, SETTINGS), 0, 320)
    ]
    assert set(drawn[:20]) == {"one"}
    assert drawn[20:].count("two") / 300 == pytest.approx(0.75, abs=0.08)  # three deviations


def test_padding_is_silence(stores, tokenizer):
    sampler = BatchSampler([Source(stores[0])], tokenizer, SETTINGS, augment=False)
    for batch in draw(sampler, 0, 5):
        longest = max(row.num_frames for row in batch.rows) + SETTINGS.tail_frames
        assert batch.features.shape == (len(batch.rows), longest, 80)
        assert batch.phones.shape == (len(batch.rows), longest)
        for index, row in enumerate(batch.rows):
            inside, beyond = batch.features[index].split([row.num_frames, longest - row.num_frames])
            assert torch.equal(inside, torch.from_numpy(stores[0].features(row)))
            assert (beyond == SILENCE).all()
            phones = batch.phones[index].numpy()
            assert (phones[: row.num_frames] == stores[0].phones(row)).all()
            assert (phones[row.num_frames :] == NO_PHONE).all()
            assert batch.feature_lengths[index] == row.num_frames + SETTINGS.tail_frames
            targets = tokenizer.encode(row.text)
            assert batch.targets[index].tolist()[: len(targets)] == targets
            assert not batch.targets[index, len(targets) :].any()
            assert batch.target_lengths[index] == len(targets)


def test_masks_are_bands_of_the_mean():
    settings = BatchSettings(time_masks=1, time_mask_frames=6, mel_masks=1, mel_mask_bins=5)
    widths = set()
    for seed in range(200):
        features = np.random.default_rng(seed).normal(size=(64, 20)).astype(np.float32)
        masked = features.copy()
        mask_(masked, settings, np.random.default_rng(seed))
        changed = masked != features
        assert (masked[changed] == features.mean()).all()
        frames, bins = changed.all(1), changed.all(0)
        assert (changed == frames[:, None] | bins).all()
        for band in (frames, bins):
            inside = np.flatnonzero(band)
            assert not len(inside) or np.ptp(inside) == len(inside) - 1
        widths.add((frames.sum(), bins.sum()))
    assert {frames for frames, _ in widths} == set(range(7))
    assert {bins for _, bins in widths} == set(range(6))


def test_short_utterances_lose_an_eighth_at_most():
    features = np.random.default_rng(0).normal(size=(16, 20)).astype(np.float32)
    for seed in range(50):
        masked = features.copy()
        settings = BatchSettings(time_masks=1, time_mask_frames=12, mel_masks=0)
        mask_(masked, settings, np.random.default_rng(seed))
        assert (masked != features).all(1).sum() <= 2


def test_buckets_are_bounded_and_sorted(stores):
    rows = stores[0].rows
    batches = bucket(rows, 200)
    lengths = [[row.num_frames for row in batch] for batch in batches]
    assert list(chain(*lengths)) == sorted(row.num_frames for row in rows)
    assert all(max(batch) * len(batch) <= 200 for batch in lengths)
    drawn = bucket(rows, 200, np.random.default_rng(0))
    assert all(max(r.num_frames for r in batch) * len(batch) <= 200 for batch in drawn)
    assert sorted(row.id for batch in drawn for row in batch) == sorted(row.id for row in rows)
    spread = [np.ptp([row.num_frames for row in batch]) for batch in drawn]
    assert np.mean(spread) < 15  # like lengths together: of 30..99 frames


def test_an_utterance_longer_than_a_batch_stands_alone(stores):
    batches = bucket(stores[0].rows, 25)
    assert [len(batch) for batch in batches] == [1] * 30
