"""Many streams in one pool: each hears what it would hear alone, whatever the others do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streaming
from streaming import GateSettings
from streaming.errors import AudioError, InputError
from streaming.pool import RecognizerPool
from tests.streaming.tiny_bundle import make_speech

SOUNDS = [make_speech(12000 + 3000 * n, seed=n) for n in range(6)]


def decode_alone(recognizer, samples):
    """Utterances, by the rules for end-points."""
    pool = RecognizerPool(recognizer, max_batch=1)
    stream = pool.open()
    pool.accept_waveform(stream, 16000, samples)
    pool.input_finished(stream)
    drain(pool)
    return stream.take().utterances


def drain(pool):
    """Decodes all that waits; returns the rounds in which each stream ended."""
    rounds = []
    while pool.is_busy:
        rounds.append(pool.decode())
    return rounds


@pytest.fixture(scope="module")
def alone(recognizer):
    return [decode_alone(recognizer, samples) for samples in SOUNDS]


def test_alone_is_the_recogniser_itself(recognizer, alone):
    expected = [list(recognizer.transcribe([samples]))[-1] for samples in SOUNDS]
    assert [" ".join(r.text for r in results) for results in alone] == expected
    assert any(expected)


@settings(max_examples=20, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9000)), max_size=30),
    max_batch=st.integers(1, 7),
)
def test_any_interleaving_gives_each_its_own(recognizer, alone, steps, max_batch):
    pool = RecognizerPool(recognizer, max_batch)
    streams = [pool.open() for _ in SOUNDS]
    position = [0] * len(SOUNDS)
    for n, size in steps:
        pool.accept_waveform(streams[n], 16000, SOUNDS[n][position[n] :][:size])
        position[n] += size
        if size % 2:
            pool.decode()
    for n, stream in enumerate(streams):
        pool.accept_waveform(stream, 16000, SOUNDS[n][position[n] :])
        pool.input_finished(stream)
    drain(pool)
    assert [stream.take().utterances for stream in streams] == alone
    assert not pool.streams


def test_an_hour_at_once_delays_nobody(recognizer):
    pool = RecognizerPool(recognizer, max_batch=2)
    long, *short = [pool.open() for _ in range(4)]
    pool.accept_waveform(long, 16000, np.tile(SOUNDS[0], 60))
    for stream in short:
        pool.accept_waveform(stream, 16000, SOUNDS[0][:6000])  # one chunk
    ended = [stream for done in drain(pool) for stream in done]
    assert ended == [*short, long]
    rounds_of_long = long.num_chunks
    assert rounds_of_long > 100
    assert all(stream.num_chunks == 1 for stream in short)


def test_batches_are_full_and_bounded(recognizer):
    pool = RecognizerPool(recognizer, max_batch=4)
    for samples in SOUNDS:
        pool.accept_waveform(pool.open(), 16000, samples[:6000])
    sizes = []
    while pool.is_busy:
        pool.decode()
        sizes.append(pool.last_batch)
    assert max(sizes) == 4
    assert sum(sizes) == len(SOUNDS)


def test_bad_sound_ends_one_stream(recognizer, alone):
    pool = RecognizerPool(recognizer)
    streams = [pool.open() for _ in SOUNDS]
    for n, stream in enumerate(streams):
        samples = SOUNDS[n].copy()
        if n == 2:
            samples[7000] = np.nan
        pool.accept_waveform(stream, 16000, samples)
        pool.input_finished(stream)
    drain(pool)
    with pytest.raises(AudioError, match="not finite"):
        streams.pop(2).take()
    assert [s.take().utterances for s in streams] == alone[:2] + alone[3:]
    assert not pool.streams


def test_a_damaged_stream_ends_alone(recognizer, alone):
    """One that breaks the call of the whole batch: the others are decoded without it."""
    pool = RecognizerPool(recognizer)
    streams = [pool.open() for _ in SOUNDS]
    streams[3].stream.state = tuple(part[..., :1] for part in streams[3].stream.state)
    for n, stream in enumerate(streams):
        pool.accept_waveform(stream, 16000, SOUNDS[n])
        pool.input_finished(stream)
    drain(pool)
    assert streams[3].error is not None
    del streams[3]
    assert [s.take().utterances for s in streams] == alone[:3] + alone[4:]


@pytest.mark.parametrize("samples", [np.full(8000, 3.0), np.zeros((4, 2)), np.zeros(0)])
def test_loud_stereo_and_empty_sounds_pass(recognizer, samples):
    pool = RecognizerPool(recognizer)
    stream = pool.open()
    pool.accept_waveform(stream, 16000, samples.astype(np.float32))
    pool.input_finished(stream)
    drain(pool)
    assert len(stream.take().utterances) == 1


def test_utterances_end_behind_a_gate(bundle):
    """No chunk is decoded while it is shut; the end-point comes with the sound that is left out."""
    pool = RecognizerPool(streaming.open_bundle(bundle, "fp32", gate=GateSettings()))
    stream = pool.open()
    quiet = np.zeros(16000, dtype=np.float32)
    pool.accept_waveform(stream, 16000, make_speech(32000, 1))
    ended = []
    for _ in range(11):
        pool.accept_waveform(stream, 16000, quiet)
        drain(pool)
        ended += [result for result in stream.take().utterances if result.text]
    assert len(ended) == 1
    assert stream.num_chunks * 0.32 < 5
    assert stream.partial == ""


@pytest.mark.parametrize("rate", [0, -1, 16000.5])
def test_a_wrong_rate_ends_the_stream(recognizer, rate):
    pool = RecognizerPool(recognizer)
    stream = pool.open()
    pool.accept_waveform(stream, rate, SOUNDS[0])
    drain(pool)
    with pytest.raises(AudioError, match="give the rate"):
        stream.take()


def test_a_closed_stream_is_forgotten(recognizer):
    pool = RecognizerPool(recognizer)
    stream = pool.open()
    pool.accept_waveform(stream, 16000, SOUNDS[5])
    pool.decode()
    pool.close(stream)
    assert not pool.is_busy
    assert not pool.streams
    pool.accept_waveform(stream, 16000, SOUNDS[5])
    assert not pool.is_busy, "not even when sound of it comes late"


def test_misuse_names_the_fix(recognizer):
    with pytest.raises(InputError, match="use 32"):
        RecognizerPool(recognizer, max_batch=0)
    pool = RecognizerPool(recognizer)
    stream = pool.open()
    pool.input_finished(stream)
    with pytest.raises(InputError, match="open another"):
        pool.accept_waveform(stream, 16000, SOUNDS[0])
