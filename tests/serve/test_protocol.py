"""Messages to actions, results to answers; no socket."""

import json

import numpy as np
import pytest

from compress.serve.protocol import (
    Audio,
    Config,
    Eof,
    format_error,
    format_utterance,
    parse_message,
)
from streaming import InputError, Result


def test_samples_are_little_endian():
    action = parse_message(b"\x00\x40\x00\x80\xff\x7f", Config())
    assert isinstance(action, Audio)
    assert action.samples.dtype == np.float32
    assert action.samples.tolist() == [0.5, -1.0, 32767 / 32768]


@pytest.mark.parametrize("message", ['{"eof" : 1}', '{"eof":1}', '{"eof": true}'])
def test_the_end(message):
    assert parse_message(message, Config()) == Eof()


def test_configs_add_up():
    """The messages of vosk-server's test.py and test_words.py, without a phrase_list."""
    config = parse_message('{ "config" : { "sample_rate" : 8000 } }', Config(16000))
    assert config == Config(8000, words=True)
    config = parse_message('{"config": {"words": 0, "max_alternatives": 0}}', config)
    assert config == Config(8000, words=False)


@pytest.mark.parametrize("rate", [0, -8000, 7999, 44101, 1e9, "16000", None, True, [], 10**400])
def test_rates_that_are_none(rate):
    with pytest.raises(InputError, match="give the rate of your sound in Hz"):
        parse_message(json.dumps({"config": {"sample_rate": rate}}), Config())


@pytest.mark.parametrize("rate", [8000, 11025, 16000.0, 22050, 44100, 48000, 96000])
def test_rates_of_sound_cards(rate):
    assert (
        parse_message(json.dumps({"config": {"sample_rate": rate}}), Config()).sample_rate == rate
    )


@pytest.mark.parametrize(
    "message",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"text": 1}',
        '{"config": 3}',
        '{"config": {"max_alternatives": 3}}',
        '{"config": {"phrase_list": ["a"]}}',
        "[" * 100000,
        '"' + "x" * (1 << 17) + '"',
        b"\0",
    ],
)
def test_what_is_refused_names_the_fix(message):
    with pytest.raises(InputError, match=r": (send|leave)") as caught:
        parse_message(message, Config())
    assert len(str(caught.value)) < 250
    assert json.loads(format_error(caught.value))["error"] == str(caught.value)


RESULT = Result(
    " turn on",
    [" tu", "rn", " o", "n"],
    [0.2, 0.4, 0.6, 0.72],
    2.0,
    10.0,
    1,
    [0.0, -1.0, -0.5, -0.5],
)


def test_an_utterance_as_vosk_spells_it():
    answer = json.loads(format_utterance(RESULT))
    assert list(answer) == ["result", "text"]
    assert answer["result"] == [
        {"conf": 0.6065, "end": 10.6, "start": 10.2, "word": "turn"},
        {"conf": 0.6065, "end": 11.12, "start": 10.6, "word": "on"},
    ]
    assert json.loads(format_utterance(RESULT, words=False)) == {"text": " turn on"}
    assert json.loads(format_utterance(Result("", [], [], 2.4))) == {"text": ""}
