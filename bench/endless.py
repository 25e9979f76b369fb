"""A stream that never ends: does memory grow, does a chunk take longer after ten hours?

    python bench/endless.py [--quick] [--bundle DIR] [--hours 10]

Synthetic speech with pauses goes through one stream at full speed, in pieces of 100 ms, with the
default end-point rules; once an hour the stream is put away as bytes and taken up again. Memory is
VmRSS after every ten minutes of sound; a chunk's time is CPU time of its thread. Without --bundle
a small Conformer of random weights. Writes bench/results/endless.json; --quick: half an hour,
endless-quick.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from compress.data.cuts import read_samples
from compress.data.sets import synthetic_cuts
from compress.progress import track
from running.models import write_model
from streaming import Recognizer, open_bundle
from streaming.features import FloatArray

BENCH = Path(__file__).parent
RATE, PIECE = 16000, 1600
SLICE_SECONDS = 600
PAUSE_SECONDS = (0.2, 3.0)
MAX_GROWTH_MB, MAX_SLOWDOWN = 1.0, 1.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half an hour")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--hours", type=float, default=10.0)
    arguments = parser.parse_args()
    hours = 0.5 if arguments.quick else arguments.hours
    speech = [read_samples(cut) for cut in synthetic_cuts(60, "test", 3)]
    bundle = arguments.bundle or make_bundle(speech)
    found = listen_long(open_bundle(bundle), with_pauses(speech), hours)
    name = "endless-quick.json" if arguments.quick else "endless.json"
    (BENCH / "results" / name).write_text(json.dumps(found, indent=1) + "\n")
    for key, value in found.items():
        if key != "slices":
            print(f"{key}: {value}")
    print(json.dumps(found))


def make_bundle(speech: list[FloatArray]) -> Path:
    folder = BENCH.parent / "runs" / "runtime" / "small-stateless"
    folder.parent.mkdir(parents=True, exist_ok=True)
    return (
        folder
        if folder.exists()
        else write_model("small", "stateless", folder, np.concatenate(speech))
    )


def with_pauses(speech: list[FloatArray]) -> FloatArray:
    """Each utterance and a pause after it, some long enough for an end-point."""
    rng = np.random.default_rng(0)
    sizes = (rng.uniform(*PAUSE_SECONDS, len(speech)) * RATE).astype(int)
    parts = [
        (s, rng.normal(0, 1e-4, n).astype(np.float32)) for s, n in zip(speech, sizes, strict=True)
    ]
    return np.concatenate([part for pair in parts for part in pair])


def listen_long(recognizer: Recognizer, sound: FloatArray, hours: float) -> dict[str, Any]:
    pieces = cycle(np.split(sound, range(PIECE, len(sound), PIECE)))
    stream, slices, num_segments = recognizer.create_stream(), [], 0
    num_slices = max(2, round(hours * 3600 / SLICE_SECONDS))
    for number in track(range(num_slices), "listening", num_slices):
        times, heard, num_tokens = [], 0, 0
        while heard < SLICE_SECONDS * RATE:
            samples = next(pieces)
            heard += len(samples)
            stream.accept_waveform(RATE, samples)
            while recognizer.is_ready(stream):
                begun = time.thread_time()
                recognizer.decode_stream(stream)
                times.append(time.thread_time() - begun)
            if recognizer.is_endpoint(stream):
                num_segments += 1
                num_tokens += len(recognizer.get_result_all(stream).tokens)
                recognizer.reset(stream)
        if number % 6 == 5:
            stream = recognizer.resume_stream(stream.pause())
        gc.collect()
        chunk_ms = 1000 * median(times)
        slices.append(
            {"chunk_ms": round(chunk_ms, 4), "rss_mb": resident_mb(), "tokens": num_tokens}
        )
    return judge(recognizer, slices, num_segments)


def resident_mb() -> float:
    with Path("/proc/self/status").open() as file:
        return round(next(int(x.split()[1]) for x in file if x.startswith("VmRSS")) / 1024, 3)


def judge(recognizer: Recognizer, slices: list[dict[str, float]], segments: int) -> dict[str, Any]:
    """Growth after the first slice, in which memory is first touched; the halves' median chunks."""
    middle = len(slices) // 2
    early, late = (
        median(s["chunk_ms"] for s in part) for part in (slices[:middle], slices[middle:])
    )
    growth = round(slices[-1]["rss_mb"] - slices[0]["rss_mb"], 3)
    slowdown = round(late / early, 3)
    return {
        "bundle": recognizer.info.name,
        "hours": round(len(slices) * SLICE_SECONDS / 3600, 2),
        "segments": segments,
        "tokens": int(sum(s["tokens"] for s in slices)),
        "growth_mb": growth,
        "slowdown": slowdown,
        "passed": growth < MAX_GROWTH_MB and slowdown < MAX_SLOWDOWN,
        "slices": slices,
    }


if __name__ == "__main__":
    main()
