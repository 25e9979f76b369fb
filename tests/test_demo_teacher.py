"""The built-in teacher: small enough to ship, and as good on unseen voices as its record says."""

from __future__ import annotations

import json

import pytest

from compress.checkpoint import load_model
from compress.cli import DEMO_TEACHER
from compress.data.store import build_store
from compress.data.synthetic import make_synthetic
from compress.evaluate import decode_store, word_error_rate


@pytest.fixture(scope="module")
def record():
    return json.loads((DEMO_TEACHER / "record.json").read_text())


def test_fits_the_repository(record):
    model, _ = load_model(DEMO_TEACHER)
    assert model.num_parameters == record["parameters"] <= 6_000_000
    assert (DEMO_TEACHER / "model.safetensors").stat().st_size <= 12_000_000


def test_record_says_how_it_came_to_be(record):
    assert {"recipe", "data", "seed", "steps", "training_hours", "audio_hours"} <= record.keys()
    assert record["wer"]["synthetic/test"]["wer"] <= 0.03
    assert {"speech_commands/test", "digits_fsdd/test"} <= record["wer"].keys()


def test_understands_voices_it_never_heard(tmp_path):
    model, tokenizer = load_model(DEMO_TEACHER)
    cuts = list(make_synthetic(tmp_path, 100, "test", seed=11, num_workers=1))
    store = build_store(tmp_path, "unseen", cuts, num_workers=1)
    rate = word_error_rate(*decode_store(model, store, tokenizer))
    assert rate.words > 300
    assert rate.wer < 0.05
