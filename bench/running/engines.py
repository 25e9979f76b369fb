"""Both engines have the same calls: they are fed alike and timed by one clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.sherpa import pad_samples
from streaming.bundle import read_bundle
from streaming.features import FloatArray

PIECE_SECONDS = 0.1
RATE = 16000


@dataclass
class Timing:
    """seconds: of all work. chunks_ms: from the piece that completes a chunk to having its text."""

    seconds: float = 0.0
    chunks_ms: list[float] = field(default_factory=list)
    tokens: list[list[str]] = field(default_factory=list)


def pad(bundle: Path, utterances: Sequence[FloatArray]) -> list[FloatArray]:
    """As a stream of ours ends; sherpa-onnx is given the same samples."""
    info = read_bundle(bundle)
    return [pad_samples(info, samples) for samples in utterances]


def decode(recognizer: Any, utterances: Sequence[FloatArray]) -> Timing:
    """One utterance after the other, 100 ms at a time, as from a microphone."""
    timing, piece = Timing(), round(PIECE_SECONDS * RATE)
    for samples in utterances:
        stream = recognizer.create_stream()
        for start in range(0, len(samples), piece):
            begun = time.perf_counter()
            stream.accept_waveform(RATE, samples[start : start + piece])
            worked = False
            while recognizer.is_ready(stream):
                recognizer.decode_stream(stream)
                recognizer.get_result(stream)
                worked = True
            seconds = time.perf_counter() - begun
            timing.seconds += seconds
            if worked:
                timing.chunks_ms.append(1000 * seconds)
        timing.tokens.append(list(recognizer.get_result_all(stream).tokens))
    return timing


def decode_together(recognizer: Any, streams_of: Sequence[FloatArray]) -> float:
    """Seconds for as many streams at once, each a second of its sound at a time."""
    streams = [recognizer.create_stream() for _ in streams_of]
    longest = max(map(len, streams_of))
    begun = time.perf_counter()
    for start in range(0, longest, RATE):
        for stream, samples in zip(streams, streams_of, strict=True):
            if start < len(samples):
                stream.accept_waveform(RATE, samples[start : start + RATE])
        while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
            recognizer.decode_streams(ready)
    return time.perf_counter() - begun


def spread(utterances: Sequence[FloatArray], num_streams: int, seconds: float) -> list[FloatArray]:
    """num_streams sounds of the same length, each the utterances from another one on."""
    size = round(seconds * RATE)
    sounds = []
    for first in range(num_streams):
        start = first % len(utterances)
        turned = np.concatenate([*utterances[start:], *utterances[:start]])
        sounds.append(np.resize(turned, size))
    return sounds
