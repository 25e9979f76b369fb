"""What a bundle does when it hears: its text, its speed chunk by chunk, its memory.

The audio is handed over as a microphone would, 100 ms at a time. Loading time and memory are
measured in a process of their own that imports streaming/ alone, for this one may hold torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.progress import track
from export.loading import environment
from streaming import InputError, Recognizer, Result, open_bundle
from streaming.bundle import read_bundle
from streaming.features import FloatArray

PIECE_SECONDS = 0.1
BAR_FROM_SECONDS = 120.0  # of audio; about 3 s of work for a small bundle

Utterance = tuple[str, FloatArray, str]  # id, samples (num_samples,) at the bundle's rate, text

# VmHWM, not ru_maxrss: on Linux the latter starts from the peak of the process that forked it.
ALONE = """
import json, sys, time
import numpy as np
import streaming
bundle, precision, num_threads, piece = sys.argv[1:]
samples = np.frombuffer(sys.stdin.buffer.read(), dtype=np.float32)
start = time.perf_counter()
recognizer = streaming.open_bundle(bundle, precision, int(num_threads))
load_ms = 1000 * (time.perf_counter() - start)
stream = recognizer.create_stream()
for begin in range(0, len(samples), int(piece)):
    stream.accept(samples[begin : begin + int(piece)])
stream.finish()
try:
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"load_ms": load_ms, "peak_rss_mb": peak / 1e6}))
"""


@dataclass(frozen=True)
class BundleDecoding:
    """texts, tokens: one a utterance, in order.

    chunk_ms: from handing over the piece that completes a chunk to having its text, features
    included, one figure a chunk. rtf: seconds of work for a second of audio. load_ms: open_bundle
    in a fresh process, imports excluded. peak_rss_mb: 1e6 bytes, of Python and libraries as well.
    """

    texts: list[str]
    tokens: list[list[str]]
    seconds_audio: float
    chunk_ms: list[float]
    rtf: float
    load_ms: float
    peak_rss_mb: float

    def percentiles(self) -> dict[str, float]:
        """{"p50": .., "p95": ..} of chunk_ms, as report.json has them."""
        middle, high = np.percentile(self.chunk_ms, [50, 95])
        return {"p50": float(middle), "p95": float(high)}


def decode_bundle(
    bundle: Path | str,
    utterances: Sequence[Utterance],
    precision: str | None = None,
    num_threads: int = 1,
) -> BundleDecoding:
    """Decodes every utterance through streaming/, chunk by chunk, and measures it.

    precision: "fp32" or a quantised one of the bundle; None takes the bundle's default.
    Raises InputError for a bad bundle, no audio at all, or samples that are not finite.
    """
    recognizer = open_bundle(bundle, precision, num_threads)
    sample_rate = recognizer.info.features.sample_rate
    seconds_audio = sum(len(samples) for _, samples, _ in utterances) / sample_rate
    if seconds_audio == 0:
        raise InputError(f"no audio to decode with {bundle}: give utterances that have samples")
    results: list[Result] = []
    chunk_ms: list[float] = []
    seconds_busy = 0.0
    for name, samples, _ in _with_bar(utterances, seconds_audio):
        try:
            result, times_ms, seconds = decode_samples(recognizer, samples)
        except InputError as error:
            raise InputError(f"utterance {name}: {error}") from error
        results.append(result)
        chunk_ms.extend(times_ms)
        seconds_busy += seconds
    longest = max((samples for _, samples, _ in utterances), key=len)
    load_ms, peak_rss_mb = measure_alone(bundle, longest, precision, num_threads)
    return BundleDecoding(
        texts=[result.text for result in results],
        tokens=[result.tokens for result in results],
        seconds_audio=seconds_audio,
        chunk_ms=chunk_ms,
        rtf=seconds_busy / seconds_audio,
        load_ms=load_ms,
        peak_rss_mb=peak_rss_mb,
    )


def measure_alone(
    bundle: Path | str, samples: FloatArray, precision: str | None = None, num_threads: int = 1
) -> tuple[float, float]:
    """(load_ms, peak_rss_mb) of a fresh process that opens the bundle and decodes `samples`."""
    info = read_bundle(bundle)
    piece = round(PIECE_SECONDS * info.features.sample_rate)
    arguments = [str(bundle), precision or info.default_precision, str(num_threads), str(piece)]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *arguments],
        input=np.ascontiguousarray(samples, dtype=np.float32).tobytes(),
        capture_output=True,
        env=environment(),
    )
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"measuring {bundle} in a process of its own failed: {reason}")
    measured = json.loads(done.stdout)
    return measured["load_ms"], measured["peak_rss_mb"]


def decode_samples(
    recognizer: Recognizer, samples: FloatArray
) -> tuple[Result, list[float], float]:
    """The result, milliseconds of every chunk, and seconds of work in all."""
    stream = recognizer.create_stream()
    sample_rate = recognizer.info.features.sample_rate
    piece = round(PIECE_SECONDS * sample_rate)
    times_ms: list[float] = []
    begun = mark = time.perf_counter()
    for begin in range(0, len(samples) + piece, piece):
        if begin < len(samples):
            stream.accept_waveform(sample_rate, samples[begin : begin + piece])
        else:
            stream.input_finished()
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
            recognizer.get_result(stream)
            now = time.perf_counter()
            times_ms.append(1000 * (now - mark))
            mark = now
        mark = time.perf_counter()
    return recognizer.get_result_all(stream), times_ms, mark - begun


def _with_bar(utterances: Sequence[Utterance], seconds_audio: float) -> Iterable[Utterance]:
    if seconds_audio < BAR_FROM_SECONDS:
        return utterances
    return track(utterances, "decoding the bundle", len(utterances))
