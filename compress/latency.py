"""How late a bundle is: what a user waits for when sound comes in real time.

Nothing sleeps here; time is arithmetic. A piece of sound is there at its end, a chunk is decoded
when its last piece is there and the chunk before it is done, and takes as long as it took just now.

    first text   from the start of the first word to the first text on the screen
    word         from the end of a word to its last token on the screen
    emission     the same to the end of the frame that emitted the token: the model's own delay
    last word    from the end of the last word to the whole text, in sound that goes on as silence
    finish       from finish() to the whole text, when the sound ends with the last word
    tail         silence after the last word that the model needs to say it

Times of words are the data's alignment; synthetic speech has one. Words that were not heard, or
heard wrongly, have no delay and are counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import kaldialign
import numpy as np

from compress.measure import PIECE_SECONDS
from compress.progress import track
from streaming import InputError, Recognizer, Result
from streaming.features import FloatArray
from streaming.words import find_starts

SILENCE_SECONDS = 2.0  # after the last word; more than any chunk and delay
NOTHING = "*"
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class SpokenWord:
    """A word of an alignment, in seconds from the start of the sound."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Step:
    """One decoded chunk: when its text was there, the chunk's work, and how far it has heard."""

    at_seconds: float
    work_seconds: float
    heard_seconds: float
    text: str


@dataclass
class Delays:
    """Milliseconds of every case; num_missed: words of the data that were not heard right."""

    first_text: list[float] = field(default_factory=list)
    word: list[float] = field(default_factory=list)
    emission: list[float] = field(default_factory=list)
    last_word: list[float] = field(default_factory=list)
    finish: list[float] = field(default_factory=list)
    tail: list[float] = field(default_factory=list)
    chunk: list[float] = field(default_factory=list)
    num_words: int = 0
    num_missed: int = 0

    def summary(self) -> dict[str, Any]:
        """name -> {"p50", "p95", "p99", "max", "cases"} in ms, and the two counts."""
        values = asdict(self)
        counts = {name: values.pop(name) for name in ("num_words", "num_missed")}
        return {name: describe(ms) for name, ms in values.items()} | counts


def measure_delays(
    recognizer: Recognizer, utterances: Iterable[tuple[FloatArray, Sequence[SpokenWord]]]
) -> Delays:
    """Each utterance twice: as sound that goes on as silence, and as one that ends.

    utterances: samples (num_samples,) at the recogniser's rate, and their words in order.
    Raises InputError when there is no utterance with words.
    """
    utterances = [(samples, words) for samples, words in utterances if words]
    if not utterances:
        raise InputError("no words with times: give data with a word alignment, or none at all")
    delays = Delays()
    for samples, words in track(utterances, "measuring delays", len(utterances)):
        ended = cut_after(recognizer, samples, words[-1].end)
        result, steps = follow(recognizer, ended)
        delays.chunk += [1000 * step.work_seconds for step in steps]
        add_words(delays, recognizer, result, steps, words)
        add_ends(delays, recognizer, result, steps, words)
        delays.finish.append(1000 * time_finish(recognizer, ended))
    return delays


def cut_after(recognizer: Recognizer, samples: FloatArray, seconds: float) -> FloatArray:
    return samples[: round(seconds * recognizer.info.features.sample_rate)]


def follow(recognizer: Recognizer, samples: FloatArray) -> tuple[Result, list[Step]]:
    """Decodes the sound and SILENCE_SECONDS after it as they come, piece by piece."""
    rate = recognizer.info.features.sample_rate
    silence = np.zeros(round(SILENCE_SECONDS * rate), dtype=np.float32)
    samples = np.concatenate([samples, silence])
    stream, piece, free, steps = recognizer.create_stream(), round(PIECE_SECONDS * rate), 0.0, []
    for start in range(0, len(samples), piece):
        arrived = (start + len(samples[start : start + piece])) / rate
        begun = time.perf_counter()
        stream.accept_waveform(rate, samples[start : start + piece])
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
            text = recognizer.get_result(stream)
            work = time.perf_counter() - begun
            free = max(arrived, free) + work
            heard = stream.search.num_frames * recognizer.info.frame_seconds
            steps.append(Step(free, work, heard, text))
            begun = time.perf_counter()
    return recognizer.get_result_all(stream), steps


def time_finish(recognizer: Recognizer, samples: FloatArray) -> float:
    """Seconds from finish() to the text; all sound but the last piece was decoded as it came."""
    rate = recognizer.info.features.sample_rate
    stream, piece = recognizer.create_stream(), round(PIECE_SECONDS * rate)
    for start in range(0, len(samples), piece):
        stream.accept(samples[start : start + piece])
    begun = time.perf_counter()
    stream.finish()
    return time.perf_counter() - begun


def add_words(
    delays: Delays,
    recognizer: Recognizer,
    result: Result,
    steps: Sequence[Step],
    words: Sequence[SpokenWord],
) -> None:
    """Delays of the words that were heard right, found by aligning the two texts."""
    starts = [*find_starts(result.tokens), len(result.tokens)]
    last = [result.timestamps[stop - 1] for stop in starts[1:]]  # emission of each word's end
    heard, num_right = result.text.split(), 0
    pairs = kaldialign.align([word.text for word in words], heard, NOTHING)
    said, got = iter(words), iter(last if len(last) == len(heard) else [])
    for reference, hypothesis in pairs:
        word = next(said) if reference != NOTHING else None
        emitted = next(got, None) if hypothesis != NOTHING else None
        if word is None or emitted is None or reference != hypothesis:
            continue
        num_right += 1
        frame_end = emitted + recognizer.info.frame_seconds
        shown = next(step.at_seconds for step in steps if step.heard_seconds >= frame_end - 1e-6)
        delays.emission.append(1000 * (frame_end - word.end))
        delays.word.append(1000 * (shown - word.end))
    delays.num_words += len(words)
    delays.num_missed += len(words) - num_right


def add_ends(
    delays: Delays,
    recognizer: Recognizer,
    result: Result,
    steps: Sequence[Step],
    words: Sequence[SpokenWord],
) -> None:
    """First and last text; nothing for an utterance in which nothing was heard."""
    if not result.text:
        return
    first = next(step for step in steps if step.text)
    last = next(step for step in steps if step.text == result.text)
    delays.first_text.append(1000 * (first.at_seconds - words[0].start))
    delays.last_word.append(1000 * (last.at_seconds - words[-1].end))
    needed = result.timestamps[-1] + recognizer.info.frame_seconds - words[-1].end
    delays.tail.append(1000 * max(0.0, needed))


def describe(milliseconds: Sequence[float]) -> dict[str, float]:
    if not milliseconds:
        return {"cases": 0}
    values = np.percentile(milliseconds, PERCENTILES)
    figures = {f"p{p}": round(float(v), 2) for p, v in zip(PERCENTILES, values, strict=True)}
    return {**figures, "max": round(max(milliseconds), 2), "cases": len(milliseconds)}
