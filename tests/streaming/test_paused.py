"""Streams that are copied, or put away as bytes and taken up again, hear on as if nothing was."""

import contextlib
import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streaming
from streaming.errors import InputError
from streaming.paused import write_values
from streaming.search import GreedyState, Token
from tests.streaming.cutting import cut, cuts
from tests.streaming.tiny_bundle import build_bundle, make_speech

WAYS = {
    "copy": lambda recognizer, stream: stream.copy(),
    "pause": lambda recognizer, stream: recognizer.resume_stream(stream.pause()),
}


def finish(recognizer, stream):
    stream.finish()
    return recognizer.get_result_all(stream)


@settings(max_examples=40, deadline=None)
@given(
    points=cuts(24000),
    ways=st.lists(st.sampled_from([None, *WAYS]), min_size=3, max_size=8),
    rate=st.sampled_from([16000, 16000, 22050, 44100]),
    precision=st.sampled_from(["fp32", "int8"]),
)
def test_a_stream_taken_up_again_hears_the_same(bundle, points, ways, rate, precision):
    recognizer = streaming.open_bundle(bundle, precision)
    speech = make_speech(24000, 5, rate)
    plain, stream = recognizer.create_stream(), recognizer.create_stream()
    plain.accept(speech, rate)
    for number, samples in enumerate(cut(speech, points)):
        stream.accept(samples, rate)
        way = ways[number % len(ways)]
        stream = WAYS[way](recognizer, stream) if way else stream
    result = finish(recognizer, stream)
    assert result == finish(recognizer, plain)
    assert result.tokens


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_two_go_on_independently(recognizer, way):
    one = recognizer.create_stream()
    one.accept(make_speech(20000, 1))
    other = way(recognizer, one)
    for seed in range(4):  # several chunks each, in turn: buffers must not be shared
        one.accept(make_speech(16000, 10 + seed))
        other.accept(make_speech(16000, 20 + seed))
    alone = recognizer.create_stream()
    alone.accept(make_speech(20000, 1))
    for seed in range(4):
        alone.accept(make_speech(16000, 20 + seed))
    assert finish(recognizer, other) == finish(recognizer, alone)
    assert finish(recognizer, one) != recognizer.get_result_all(alone)


def test_a_paused_stream_is_small(recognizer):
    stream = recognizer.create_stream()
    sizes = set()
    for seed in range(20):
        stream.accept(make_speech(16000, seed))
        recognizer.reset(stream)
        sizes.add(len(stream.pause()) // 1000)
    assert max(sizes) < 40, "a chunk of samples and a small state"


def test_another_bundle_or_precision_refuses_it(recognizer, bundle, tmp_path):
    paused = recognizer.create_stream().pause()
    with pytest.raises(InputError, match="not a stream of this recogniser"):
        streaming.open_bundle(bundle, "int8").resume_stream(paused)
    other = build_bundle(tmp_path / "other", tail_frames=64)
    with pytest.raises(InputError, match="not a stream of this recogniser"):
        streaming.open_bundle(other, "fp32").resume_stream(paused)


def archive(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    "paused",
    [
        b"",
        b"not an archive",
        pickle.dumps({"a": 1}),
        archive(),
        archive(json=np.array("[]")),
        archive(json=np.array('{"dict": {}}')),
        archive(json=np.array('{"class": "Recognizer", "fields": {}}')),
        archive(json=np.array([os.system], dtype=object)),
        archive(json=np.array("[" * 100_000)),
    ],
)
def test_hostile_bytes_make_nothing(recognizer, paused):
    with pytest.raises(InputError, match="not a stream"):
        recognizer.resume_stream(paused)


@pytest.mark.parametrize(
    "damage",
    [
        {"search": None},
        {"search": GreedyState((np.zeros(1),), np.zeros(3, dtype=np.float32))},
        {"state": ()},
        {"state": (np.zeros((1, 1, 24), dtype=np.float64), np.zeros((1, 1, 1), dtype=np.float32))},
        {"tokens": [Token(10_000, 0)]},
        {"tokens": 5},
        {"features": {"num_samples": 10**9, "num_read": 5, "finished": False, "samples": 0}},
        {"sample_rate": 0, "resampler": {"_pending": 0}},
        {"start_frame": "now"},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_values_that_do_not_fit_are_refused(recognizer, damage):
    values = recognizer.create_stream().save() | {"recognizer": recognizer.identity}
    assert recognizer.resume_stream(write_values(values))
    with pytest.raises(InputError, match="not a stream"):
        recognizer.resume_stream(write_values(values | damage))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_harmless(recognizer, data):
    stream = recognizer.create_stream()
    stream.accept(make_speech(9000, 2))
    paused = bytearray(stream.pause())
    for _ in range(data.draw(st.integers(1, 3))):
        paused[data.draw(st.integers(0, len(paused) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        recognizer.resume_stream(bytes(paused))
