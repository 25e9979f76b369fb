"""Samples without a header, as they come through a pipe or a socket."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from streaming.errors import AudioError
from streaming.features import FloatArray

# name -> numpy's name of a sample, and its full scale. The names are ffmpeg's.
ENCODINGS = {"s16le": ("<i2", 32768.0), "f32le": ("<f4", 1.0)}


def decode_pcm(data: bytes, encoding: str = "s16le") -> FloatArray:
    """Mono float32 (num_samples,), in [-1, 1] when they are integers.

    Raises AudioError for an unknown encoding and for part of a sample.
    """
    if encoding not in ENCODINGS:
        raise AudioError(f"encoding {encoding!r} is not known: use {' or '.join(ENCODINGS)}")
    name, scale = ENCODINGS[encoding]
    size = np.dtype(name).itemsize
    if len(data) % size:
        raise AudioError(
            f"{len(data)} bytes are no whole number of samples: send {encoding}, one channel, "
            f"{size} bytes a sample"
        )
    return np.asarray(np.frombuffer(data, dtype=name) / scale, dtype=np.float32)


def read_pcm(file: BinaryIO, sample_rate: int, encoding: str = "s16le") -> Iterator[FloatArray]:
    """Blocks of a second, as they come, until the file ends."""
    decode_pcm(b"", encoding)
    size = sample_rate * np.dtype(ENCODINGS[encoding][0]).itemsize
    while data := file.read(size):
        yield decode_pcm(data, encoding)
