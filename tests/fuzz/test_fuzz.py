"""The fuzzers' seeds and some random bytes: nothing but InputError comes out."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.nasty import MESSAGES, make_wav, nasty_sounds
from tests.fuzz.targets import read_message, read_sound

SOUNDS = dict(nasty_sounds())
GOOD = {"good", "beyond one", "a chunk before", "no end of chunks", "rate 44101", "channels 2"}


@pytest.mark.parametrize("name", SOUNDS)
def test_nasty_sounds(name):
    wrong = read_sound(SOUNDS[name])
    if name in GOOD:
        assert not wrong


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_nasty_messages(message):
    read_message(message)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200), start=st.integers(0, 100))
def test_any_bytes_in_a_wav(data, start):
    wav = make_wav()
    read_sound(wav[:start] + data + wav[start + len(data) :])


@settings(max_examples=100, deadline=None)
@given(
    rate=st.integers(0, 2**32 - 1),
    channels=st.integers(0, 2**16 - 1),
    bits=st.sampled_from([8, 16, 24, 32, 64]),
    kind=st.sampled_from([1, 3, 6, 7, 0xFFFE]),
    size=st.integers(0, 2**32 - 1),
    samples=st.binary(max_size=64),
)
def test_any_header(rate, channels, bits, kind, size, samples):
    read_sound(make_wav(samples, rate, channels, bits, kind, size))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_message(data):
    read_message(data)


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(["sample_rate", "words", "model"]) | st.text(),
    value=st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    key=st.sampled_from(["config", "eof"]) | st.text(),
)
def test_any_json(name, value, key):
    read_message(json.dumps({key: {name: value}}).encode())
