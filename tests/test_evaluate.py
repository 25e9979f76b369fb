"""Word error rates against jiwer, and the batched search against a loop and a bundle."""

from __future__ import annotations

import json
import random

import jiwer
import numpy as np
import pytest
import torch

from compress.data.store import FeatureStore
from compress.evaluate import decode_store, evaluate, greedy_search, word_error_rate
from export.bundle import write_bundle
from streaming import open_bundle
from streaming.features import SILENCE, FeatureSettings, compute_features
from tests.reference.greedy import encode_stream, search_frames
from tests.streaming.tiny_bundle import make_speech
from tests.tiny_teacher import build_teacher, build_tokenizer

TAIL_FRAMES = 32


@pytest.fixture(scope="module")
def model():
    """Its logits are spread, so that no rounding decides, and two frames in three are blank."""
    model = build_teacher(seed=2)
    with torch.no_grad():
        model.joiner.output.weight.mul_(20)
        model.joiner.output.bias[0] = 18.0
        model.joiner.output.bias[1] = 8.0
    return model


@pytest.fixture(scope="module")
def speech():
    return [make_speech(num, seed=num) for num in (9_000, 16_000, 27_777)]


@pytest.fixture(scope="module")
def features(speech):
    """Log-mel (T, F) of each utterance."""
    return [compute_features(samples, FeatureSettings()) for samples in speech]


def pad(features):
    """(B, T, F) and lengths, each with its tail of silence, as compress/data/batches.py pads."""
    lengths = torch.tensor([len(one) + TAIL_FRAMES for one in features])
    padded = torch.full((len(features), int(lengths.max()), 80), SILENCE)
    for row, one in zip(padded, features, strict=True):
        row[: len(one)] = torch.from_numpy(one)
    return padded, lengths


def test_word_error_rate_by_hand():
    """b -> x and d lost of four words, one word added to two: 3 errors in 6 words."""
    rate = word_error_rate(["a b c d", "e f"], ["a x c", "e f g"])
    assert rate.wer == pytest.approx(0.5)
    assert (rate.words, rate.utterances) == (6, 2)
    assert rate.low <= 0.5 <= rate.high
    assert str(rate).startswith("50.00 % [")


def test_word_error_rate_of_nothing_heard_and_all_heard():
    assert word_error_rate(["a b", "c"], ["", ""]).wer == 1.0
    right = word_error_rate(["a b", "c"], ["a b", "c"])
    assert (right.wer, right.low, right.high) == (0, 0, 0)


def test_word_error_rate_equals_jiwer():
    draw = random.Random(0)
    words = ["yes", "no", "stop", "go"]
    references = [" ".join(draw.choices(words, k=draw.randint(1, 8))) for _ in range(60)]
    hypotheses = [" ".join(draw.choices(words, k=draw.randint(0, 8))) for _ in range(60)]
    rate = word_error_rate(references, hypotheses)
    assert rate.wer == pytest.approx(jiwer.wer(references, hypotheses))
    assert rate.low < rate.wer < rate.high


@pytest.mark.parametrize("max_symbols", [1, 3])
def test_batched_search_equals_the_loop(model, features, max_symbols):
    padded, lengths = pad(features)
    batched = greedy_search(model, padded, lengths, max_symbols)
    for one, tokens in zip(features, batched, strict=True):
        alone, length = pad([one])
        encoded, num_frames = model.encoder(alone, length)
        assert tokens == search_frames(model, encoded[0, : num_frames[0]], max_symbols)
        assert 0 < len(tokens) < max_symbols * num_frames[0], "a fair test has both kinds of frames"
        assert 1 not in tokens


def test_batched_search_equals_streaming(model, features):
    padded, lengths = pad(features)
    for one, tokens in zip(features, greedy_search(model, padded, lengths), strict=True):
        alone, length = pad([one])
        short = -int(length) % model.encoder.chunk_frames
        whole = torch.nn.functional.pad(alone[0], (0, 0, 0, short), value=SILENCE)
        encoded = encode_stream(model, whole)[: (int(length) + 3) // 4]
        assert tokens == search_frames(model, encoded)


def test_batched_search_equals_a_bundle(model, speech, features, tmp_path):
    """The figure of a teacher comes from torch, that of its student from a bundle."""
    tokenizer = build_tokenizer()
    networks = model.encoder, model.predictor, model.joiner
    settings = {"quantize": "none", "tail_frames": TAIL_FRAMES}
    write_bundle(tmp_path / "bundle", *networks, tokenizer.tokens(), **settings)
    recognizer = open_bundle(tmp_path / "bundle")
    for samples, tokens in zip(speech, greedy_search(model, *pad(features)), strict=True):
        stream = recognizer.create_stream()
        stream.accept(samples)
        assert stream.finish() == tokenizer.decode(tokens)


@pytest.fixture
def store(features, tmp_path):
    """The three utterances, as float16."""
    rows, start = [], 0
    for index, one in enumerate(features):
        row = {"id": f"u{index}", "text": "one two", "speaker": "", "data": "some"}
        rows.append({**row, "start": start, "num_frames": len(one)})
        start += len(one)
    np.concatenate(features).astype(np.float16).tofile(tmp_path / "features.f16")
    np.zeros(start, np.uint8).tofile(tmp_path / "phones.u8")
    (tmp_path / "index.json").write_text(json.dumps({"num_mel_bins": 80, "rows": rows}))
    return FeatureStore(tmp_path)


def test_a_store_is_decoded_in_its_order(model, store, features):
    tokenizer = build_tokenizer()
    references, hypotheses = decode_store(model, store, tokenizer)
    rounded = [one.astype(np.float16).astype(np.float32) for one in features]
    expected = greedy_search(model, *pad(rounded))
    assert hypotheses == [tokenizer.decode(tokens) for tokens in expected]
    assert references == ["one two"] * 3
    _, backwards = decode_store(model, store, tokenizer, store.rows[::-1])
    assert backwards == hypotheses[::-1]


def test_evaluation_on_a_part_and_the_mode_after_it(model, store):
    model.train()
    rates = evaluate(model, {"some/test": store}, build_tokenizer(), max_utterances=1)
    assert model.training
    model.eval()
    assert rates["some/test"].utterances == 1
