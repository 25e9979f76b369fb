"""vosk-server's JSON over a websocket: what a client's message asks for, and the answers.

    client: {"config": {"sample_rate": 8000, "words": true}}      optional, before the first sound
            binary messages: int16, little-endian, one channel
            {"eof": 1}                                            the last words come, and the end
    server: {"partial": "turn on"}                                after each message of sound
            {"text": "turn on", "result": [{"word", "start", "end", "conf"}, ..]}  an utterance
            {"error": "what is wrong and how to mend it"}         before it closes

Read in https://github.com/alphacep/vosk-server, websocket/asr_server.py and its test clients;
docs/serving.md says what differs. All here are functions of bytes: tests need no socket.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from streaming import InputError, Result
from streaming.features import FloatArray
from streaming.pcm import decode_pcm

MIN_RATE, MAX_RATE = 8000, 192000
RATE_STEP = 25  # 11025 Hz has it; a rate that shares less with 16000 needs megabytes of filter
MAX_TEXT = 1 << 16  # characters of a JSON message
IGNORED = {"model", "max_alternatives"}  # of a config, when they ask for nothing


@dataclass(frozen=True)
class Config:
    """What a client may choose. sample_rate None is the model's own."""

    sample_rate: int | None = None
    words: bool = True


@dataclass(frozen=True)
class Audio:
    """Samples (num_samples,) in [-1, 1]."""

    samples: FloatArray


@dataclass(frozen=True)
class Eof:
    """No sound follows."""


Action = Config | Audio | Eof


def parse_message(message: bytes | str, config: Config) -> Action:
    """What a message asks for; config is what the client asked for so far.

    Raises InputError, one line that names the fix, for everything else.
    """
    if isinstance(message, bytes):
        return Audio(decode_pcm(message))
    fields = _parse_json(message)
    if "config" in fields:
        return _parse_config(fields["config"], config)
    if "eof" in fields:
        return Eof()
    names = ascii(sorted(fields))[:80]
    raise InputError(f'the message holds {names}: send {{"config": {{...}}}} or {{"eof": 1}}')


def _parse_json(message: str) -> dict[str, Any]:
    try:
        if len(message) > MAX_TEXT:
            raise ValueError
        fields = json.loads(message)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise InputError(
            f"text that is no JSON object of at most {MAX_TEXT} characters: send sound as binary "
            'messages of 16-bit PCM, and {"eof": 1} at its end'
        )
    return fields


def _parse_config(fields: Any, config: Config) -> Config:
    if not isinstance(fields, dict):
        raise InputError('config is no object: send {"config": {"sample_rate": 16000}}')
    known = {"sample_rate", "words"}
    for name in sorted(set(fields) - known):
        if name not in IGNORED or fields[name]:
            raise InputError(f"config {name[:40]!a} is not supported here: leave it out")
    rate = config.sample_rate
    if "sample_rate" in fields:
        rate = _parse_rate(fields["sample_rate"])
    return Config(rate, bool(fields.get("words", config.words)))


def _parse_rate(value: Any) -> int:
    """vosk's clients send 16000 as well as 16000.0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not MIN_RATE <= value <= MAX_RATE or value % RATE_STEP:
        raise InputError(
            f"sample_rate {ascii(value)[:40]} is not a multiple of {RATE_STEP} in "
            f"{MIN_RATE}..{MAX_RATE}: give the rate of your sound in Hz, as in 16000"
        )
    return int(value)


def format_partial(text: str) -> str:
    return _format({"partial": text})


def format_utterance(result: Result, words: bool = True) -> str:
    """One utterance; times are seconds since the connection's first sample."""
    answer: dict[str, Any] = {}
    if words and result.text:
        answer["result"] = [
            {
                "conf": word.confidence,
                "end": round(result.start_seconds + word.end_seconds, 3),
                "start": round(result.start_seconds + word.start_seconds, 3),
                "word": word.text,
            }
            for word in result.words
        ]
    return _format(answer | {"text": result.text})


def format_error(error: Exception) -> str:
    """In ASCII: the client's own words in it may be no valid Unicode."""
    return json.dumps({"error": " ".join(str(error).split())})


def _format(answer: dict[str, Any]) -> str:
    return json.dumps(answer, ensure_ascii=False)
