"""The gate: what passes, that time goes on while it is shut, and that it never cuts a word."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

import streaming
from streaming import GateSettings
from streaming.gate import Gate
from tests.streaming.cutting import cut, cuts
from tests.streaming.tiny_bundle import make_speech

PAUSE = np.zeros(16000 * 7, dtype=np.float32)
TALK = np.concatenate([make_speech(24000, 1), PAUSE, make_speech(16000, 5), PAUSE])
ALWAYS_OPEN = GateSettings(margin_db=-np.inf)


def noisy(samples, level, seed=3):
    noise = np.random.default_rng(seed).standard_normal(len(samples)).astype(np.float32)
    return samples + np.float32(level) * noise


@pytest.fixture(scope="module")
def gated(bundle):
    return streaming.open_bundle(bundle, "fp32", gate=GateSettings())


def decode(recognizer, pieces):
    """A result of the whole, without resets, and the stream."""
    stream = recognizer.create_stream()
    for samples in pieces:
        stream.accept(samples)
    stream.finish()
    return recognizer.get_result_all(stream), stream


def decode_utterances(recognizer, pieces):
    stream, results = recognizer.create_stream(), []
    for samples in pieces:
        stream.accept(samples)
        if recognizer.is_endpoint(stream):
            results.append(recognizer.get_result_all(stream))
            recognizer.reset(stream)
    stream.finish()
    return [r for r in [*results, recognizer.get_result_all(stream)] if r.text]


@pytest.mark.parametrize("method", ["greedy_search", "modified_beam_search"])
def test_the_same_words_at_the_same_times(bundle, method):
    recognizer = streaming.open_bundle(bundle, "fp32", decoding_method=method)
    gated = streaming.open_bundle(bundle, "fp32", decoding_method=method, gate=GateSettings())
    expected, _ = decode(recognizer, [TALK])
    result, stream = decode(gated, [TALK])
    assert result.tokens == expected.tokens
    assert result.timestamps == expected.timestamps
    assert max(result.timestamps) > 6.0
    assert stream.gate.num_left_out * 0.04 > 4.0


def merge(pieces):
    """Encoder frames and samples in order, neighbours of a kind joined."""
    merged = []
    for piece in pieces:
        piece = piece if isinstance(piece, int) else piece.tolist()
        if merged and type(merged[-1]) is type(piece):
            merged[-1] = merged[-1] + piece
        else:
            merged.append(piece)
    return merged


@settings(max_examples=20, deadline=None)
@given(points=cuts(len(TALK)))
def test_any_cutting_passes_the_same(info, points):
    sound, gate = noisy(TALK, 0.001), Gate(GateSettings(), info)
    pieces = [piece for samples in cut(sound, points) for piece in gate.accept(samples)]
    assert merge(pieces) == merge(Gate(GateSettings(), info).accept(sound))
    assert len(merge(pieces)) > 3


@settings(max_examples=8, deadline=None)
@given(points=cuts(24000))
def test_an_open_gate_changes_nothing(bundle, recognizer, points):
    sound = np.concatenate([TALK[:20000], PAUSE[:4000]])
    always = streaming.open_bundle(bundle, "fp32", gate=ALWAYS_OPEN)
    result, stream = decode(always, cut(sound, points))
    assert result == decode(recognizer, [sound])[0]
    assert stream.gate.num_left_out == 0


def test_endpoints_fire_while_it_is_shut(recognizer, gated):
    blocks = np.array_split(TALK, 100)
    expected = decode_utterances(recognizer, blocks)
    results = decode_utterances(gated, blocks)
    assert [r.text for r in results] == [r.text for r in expected]
    assert len(results) == 2
    for result, other in zip(results, expected, strict=True):
        first = result.start_seconds + result.timestamps[0]
        assert first == pytest.approx(other.start_seconds + other.timestamps[0], abs=0.001)


@pytest.mark.parametrize("level", [0.0, 0.0003, 0.003, 0.01])
def test_steady_noise_shuts_it_and_a_voice_opens_it(info, level):
    gate = Gate(GateSettings(), info)
    for samples in np.array_split(noisy(np.tile(PAUSE, 2), level), 10):
        gate.accept(samples)
    assert not gate.is_open
    seconds = gate.num_left_out * 0.04
    assert seconds > 3.0
    assert any(not isinstance(p, int) for p in gate.accept(make_speech(8000, 1) * 4))
    assert gate.is_open


def test_nothing_is_cut_off_at_either_end(info):
    """0.3 s before the voice and 2.5 s behind it pass, and hardly more."""
    voice = np.sin(np.arange(16000) * 0.7).astype(np.float32) / 2
    sound = np.concatenate([PAUSE, PAUSE, voice, PAUSE])
    gate = Gate(GateSettings(), info)
    position, passed = 0, np.zeros(len(sound) + 160, dtype=bool)
    for piece in gate.accept(sound):
        size = piece * 640 if isinstance(piece, int) else len(piece)
        passed[position : position + size] = not isinstance(piece, int)
        position += size
    start = 2 * len(PAUSE)
    assert passed[start - 4700 : start + 16000 + 40000].all()
    assert not passed[start - 8000 : start - 5500].any()
    assert not passed[start + 16000 + 42000 : start + 16000 + 90000].any()


def test_it_waits_for_the_last_word_of_a_slow_model(info):
    """However short its hangover is set: tail_frames and a chunk pass behind the voice."""
    gate = Gate(GateSettings(hangover_seconds=0.0), replace(info, tail_frames=200))
    voice = np.sin(np.arange(16000) * 0.7).astype(np.float32) / 2
    passed = gate.accept(np.concatenate([PAUSE, PAUSE, voice, PAUSE]))
    assert len(passed[-2]) == pytest.approx(16000 + 232 * 160, abs=2000)


def test_it_is_paused_and_taken_up_with_its_stream(gated):
    sound = noisy(TALK, 0.001)
    expected, _ = decode(gated, [sound])
    for point in (20000, 70000, 95001):
        stream = gated.create_stream()
        stream.accept(sound[:point])
        stream = gated.resume_stream(stream.pause())
        stream.accept(sound[point:])
        stream.finish()
        assert gated.get_result_all(stream) == expected


def test_silence_alone_costs_almost_nothing(gated):
    _, stream = decode(gated, [np.zeros(16000 * 60, dtype=np.float32)])
    assert stream.features.num_read < 60 * 100 / 20
    assert stream.search.num_frames == pytest.approx(60 * 25, abs=40)
