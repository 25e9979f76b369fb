"""Feature stores: what they hold, when they are found again, what a failure leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from compress.data import store
from compress.data.augment import AugmentSettings
from compress.data.cuts import read_data, read_samples
from compress.data.espeak import phone_inventory
from compress.data.join import join_cuts, read_joined
from compress.data.noise import Augmenter, read_pack
from compress.data.store import NO_PHONE, build_store, frame_phones
from compress.data.synthetic import make_synthetic
from streaming.features import FeatureSettings, compute_features

WORDS = ["yes", "no", "stop"]
SILENT = phone_inventory().index("sil")


def write_clip(path: Path, seed: int, seconds: float) -> None:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(16_000 * seconds))
    soundfile.write(path, samples, 16_000)


@pytest.fixture
def pack(tmp_path):
    """Three clips of one speaker, 0.3 to 0.5 s."""
    folder = tmp_path / "words"
    folder.mkdir()
    lines = []
    for index, word in enumerate(WORDS):
        write_clip(folder / f"{word}.wav", index, 0.3 + 0.1 * index)
        line = {"audio_filepath": f"{word}.wav", "text": word, "speaker": "ann", "split": "train"}
        lines.append(json.dumps(line) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Six utterances of synthetic speech, which know their phones."""
    return list(make_synthetic(tmp_path_factory.mktemp("spoken"), 6, "test", num_workers=1))


def build(cache, utterances, *arguments, **settings):
    return build_store(cache, "some", utterances, *arguments, num_workers=1, **settings)


def test_it_holds_features_text_and_speaker(pack, tmp_path):
    cuts = list(read_data(pack))
    built = build(tmp_path / "cache", cuts)
    assert [(row.text, row.speaker, row.data) for row in built.rows] == [
        (word, "ann", "words") for word in WORDS
    ]
    for cut, row in zip(cuts, built.rows, strict=True):
        expected = compute_features(read_samples(cut), FeatureSettings())
        found = built.features(row)
        assert found.shape == expected.shape == (row.num_frames, 80)
        assert np.abs(found - expected).max() <= 0.008  # half a step of float16 at 16
        assert (built.phones(row) == NO_PHONE).all()
    assert built.seconds == pytest.approx(1.2, abs=0.02)
    mean, deviation = built.statistics()
    everything = np.concatenate([built.features(row) for row in built.rows])
    np.testing.assert_allclose(mean, everything.mean(0), atol=1e-3)
    np.testing.assert_allclose(deviation, everything.std(0), atol=1e-3)


def test_it_is_found_again(pack, tmp_path, monkeypatch):
    cuts = list(read_data(pack))
    first = build(tmp_path / "cache", cuts)
    monkeypatch.setattr(store, "write_store", None)
    assert build(tmp_path / "cache", cuts).folder == first.folder


def test_whatever_changes_the_content_changes_the_folder(pack, tmp_path):
    cuts = list(read_data(pack))
    augmenter = Augmenter(None)
    built = [
        build(tmp_path / "cache", cuts),
        build(tmp_path / "cache", cuts[:2]),
        build(tmp_path / "cache", cuts, seed=1),
        build(tmp_path / "cache", cuts, augmenter),
        build(tmp_path / "cache", cuts, augmenter, copies=2),
        build(tmp_path / "cache", cuts, settings=FeatureSettings(num_mel_bins=40)),
    ]
    write_clip(pack / "yes.wav", 9, 0.3)  # another recording, as long as the first
    built.append(build(tmp_path / "cache", list(read_data(pack))))
    assert len({one.folder for one in built}) == len(built)
    assert not np.array_equal(
        built[0].features(built[0].rows[0]), built[-1].features(built[-1].rows[0])
    )


def test_copies_are_heard_differently_and_reproducibly(pack, tmp_path):
    cuts = list(read_data(pack))
    one, other = (
        build(tmp_path / cache, cuts, Augmenter(None), copies=3, seed=4) for cache in "ab"
    )
    names = [row.id for row in one.rows]
    assert names[:3] == ["yes", "yes#1", "yes#2"]
    assert {row.text for row in one.rows[:3]} == {"yes"}
    heard = {one.features(row).tobytes() for row in one.rows[:3]}
    assert len(heard) == 3
    assert (one.folder / "features.f16").read_bytes() == (
        other.folder / "features.f16"
    ).read_bytes()


def test_a_failure_leaves_nothing(pack, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "compute_features", fail)
    with pytest.raises(OSError, match="No space"):
        build(tmp_path / "cache", list(read_data(pack)))
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_processes_may_build_the_same(pack, tmp_path, monkeypatch):
    cuts = list(read_data(pack))
    run_tasks = store.run_tasks

    def overtaken(*arguments):
        monkeypatch.setattr(store, "run_tasks", run_tasks)
        monkeypatch.setattr(store.os, "getpid", lambda: 1)
        build(tmp_path / "cache", cuts)
        return run_tasks(*arguments)

    monkeypatch.setattr(store, "run_tasks", overtaken)
    built = build(tmp_path / "cache", cuts)
    assert list((tmp_path / "cache").iterdir()) == [built.folder]
    assert len(built.rows) == 3


def test_joined_utterances(pack, tmp_path):
    joined = join_cuts(read_data(pack), 2, (2, 3), seed=0)
    built = build(tmp_path / "cache", joined)
    for utterance, row in zip(joined, built.rows, strict=True):
        assert (row.text, row.speaker, row.data) == (utterance.text, "ann", "words")
        expected = compute_features(read_joined(utterance), FeatureSettings())
        assert row.num_frames == len(expected)
        assert (built.phones(row) == NO_PHONE).all()


def test_phones_lie_where_the_speech_is(spoken, tmp_path):
    built = build(tmp_path, spoken)
    for row in built.rows:
        phones, energy = built.phones(row), built.features(row).mean(1)
        assert phones[0] == phones[-1] == SILENT
        assert NO_PHONE not in phones
        assert len(set(phones)) > 3
        assert energy[phones == SILENT].mean() < energy[phones != SILENT].mean() - 2


def test_phones_follow_the_speed(spoken, tmp_path):
    always = {"speed_probability": 1.0, "noise_probability": 0.0, "band_probability": 0.0}
    settings = AugmentSettings(speed=(0.9, 0.9), room_probability=0.0, **always)
    slow = build(tmp_path, spoken, Augmenter(None, settings))
    plain = build(tmp_path, spoken)
    for before, after in zip(plain.rows, slow.rows, strict=True):
        assert after.num_frames == pytest.approx(before.num_frames / 0.9, abs=2)
        ends = [
            np.flatnonzero(built.phones(row) != SILENT)[-1]
            for built, row in ((plain, before), (slow, after))
        ]
        assert ends[1] == pytest.approx(ends[0] / 0.9, abs=2)


def test_a_phone_twice_as_slow():
    """0.1 s to 0.2 s, stretched by two, is frames 20 to 39."""
    item = SimpleNamespace(start=0.1, duration=0.1, symbol="sil")
    supervision = SimpleNamespace(alignment={"phone": [item]})
    item.symbol = phone_inventory()[(SILENT + 1) % len(phone_inventory())]
    cut = SimpleNamespace(supervisions=[supervision])
    phones = frame_phones(cut, 50, 2.0)
    assert np.flatnonzero(phones != SILENT).tolist() == list(range(20, 40))


def test_a_noise_pack_holds_noises_and_rooms(tmp_path):
    lines = []
    for index, split in enumerate(["noise", "noise", "rir"]):
        write_clip(tmp_path / f"{index}.wav", index, 0.1 * (index + 1))
        lines.append(json.dumps({"audio_filepath": f"{index}.wav", "split": split}) + "\n")
    (tmp_path / "manifest.jsonl").write_text("".join(lines))
    noises, rooms = read_pack(str(tmp_path))
    assert [len(noise) for noise in noises] == [1600, 3200]
    assert [len(room) for room in rooms] == [4800]
