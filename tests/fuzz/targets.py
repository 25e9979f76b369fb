"""What is fuzzed: functions of bytes that return, or raise InputError; all else is a finding."""

import itertools
import tempfile
from pathlib import Path

from compress.serve.protocol import Config, format_error, parse_message
from streaming.audio import open_audio
from streaming.errors import InputError
from streaming.resample import Resampler

MAX_BLOCKS = 20  # a header may claim hours of sound that unpacks from a few bytes


def read_sound(data: bytes) -> str:
    """A sound file of these bytes, read as `compress transcribe` does. Returns what was wrong."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        file.write(data)
        file.flush()
        try:
            with open_audio(Path(file.name)) as sound:
                resampler = Resampler(sound.sample_rate, 16000)
                for block in itertools.islice(sound.blocks(), MAX_BLOCKS):
                    resampler.accept(block)
        except InputError as error:
            return check_message(error)
    return ""


def read_message(data: bytes) -> str:
    """A websocket message: binary, and the same bytes as text. Returns what was wrong with both."""
    wrong = []
    for message in (data, data.decode("utf-8", "replace")):
        try:
            parse_message(message, Config())
        except InputError as error:
            format_error(error).encode()
            wrong.append(check_message(error))
    return "; ".join(wrong)


def check_message(error: InputError) -> str:
    """One line of bounded length, that names a fix."""
    message = str(error)
    assert len(message.splitlines()) == 1, message
    assert len(message) < 400, message
    assert ": " in message, message
    return message
