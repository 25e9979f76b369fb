"""streaming/ beside sherpa-onnx: the same bundles, sounds, pushes and threads, in one process.

    python bench/runtime.py [--quick] [--out DIR]     12 minutes on two cores that do nothing else

Eight bundles of random weights (three Conformers, and a joiner of 640 x 4096 behind a tiny LSTM;
each with a stateless and with an LSTM predictor), fp32 and int8, one thread and two. Sound comes in
pieces of 100 ms. The engines take turns, in alternating order; a ratio is that of one turn, the
median and the middle half of all turns are given. Above 1 ours is the faster. Then 1, 8 and 64
streams at once, and loading and memory in processes of their own. Writes
bench/results/runtime.{json,md}; --quick: runtime-quick.*, small models, fewer turns, 3 minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from compress.data.cuts import read_samples
from compress.data.sets import synthetic_cuts
from compress.progress import track
from running.alone import measure_alone
from running.engines import RATE, Timing, decode, decode_together, pad, spread
from running.models import PREDICTORS, SIZES, write_model
from running.open import ENGINES
from running.table import to_markdown
from streaming.features import FloatArray

BENCH = Path(__file__).parent
PRECISIONS = ("int8", "fp32")
NUM_STREAMS = (1, 8, 64)
STREAM_SECONDS = {1: 24.0, 8: 6.0, 64: 3.0}  # of each stream
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two sizes, int8, few turns")
    parser.add_argument("--out", type=Path, help="where the bundles are kept for another call")
    arguments = parser.parse_args()
    name = "runtime-quick" if arguments.quick else "runtime"
    folder = arguments.out or BENCH.parent / "runs" / "runtime"
    speech = [read_samples(cut) for cut in synthetic_cuts(12, "test", 3)]
    sizes = ("small", "joiner") if arguments.quick else SIZES
    bundles = make_bundles(sizes, folder, speech)
    precisions = PRECISIONS[:1] if arguments.quick else PRECISIONS
    turns = 3 if arguments.quick else 7
    results = BENCH / "results" / name
    kept = Kept(folder / f"{name}.json")
    cases = list(product(bundles.items(), precisions, (1, 2)))
    alone = [
        kept.row(compare, bundle, path, precision, threads, excerpt(bundle, speech), turns)
        for (bundle, path), precision, threads in track(cases, "side by side", len(cases))
    ]
    many = list(product(bundles.items(), NUM_STREAMS))
    together = [
        kept.row(compare_together, bundle, path, "int8", num, excerpt(bundle, speech), turns)
        for (bundle, path), num in track(many, "many streams", len(many))
    ]
    content = {"alone": alone, "together": together}
    results.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    table = to_markdown(alone, together)
    results.with_suffix(".md").write_text(table)
    print(table)
    print(json.dumps(content))


def excerpt(bundle: str, speech: list[FloatArray]) -> list[FloatArray]:
    """A third of the sound for models that take ten times as long."""
    return speech[:4] if bundle.startswith("wide") else speech


class Kept:
    """Rows that were measured before: killed, the benchmark goes on where it stopped."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows = json.loads(file.read_text()) if file.exists() else {}

    def row(self, measure: Callable[..., Row], bundle: str, path: Path, *rest: Any) -> Row:
        key = " ".join(map(str, (measure.__name__, bundle, *rest[:2])))
        if key not in self.rows:
            self.rows[key] = measure(bundle, path, *rest)
            self.file.write_text(json.dumps(self.rows))
        return self.rows[key]


def make_bundles(sizes: tuple[str, ...], folder: Path, speech: list[FloatArray]) -> dict[str, Path]:
    """ "small, lstm" -> its bundle, made unless it is there."""
    names = list(product(sizes, PREDICTORS))
    paths = {f"{size}, {predictor}": folder / f"{size}-{predictor}" for size, predictor in names}
    sound = np.concatenate(speech)
    for (size, predictor), path in track(
        zip(names, paths.values(), strict=True), "making the bundles", len(names)
    ):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_model(size, predictor, path, sound)
    return paths


def compare(
    bundle: str, path: Path, precision: str, threads: int, speech: list[FloatArray], turns: int
) -> Row:
    """One stream after the other; warm after the first turn, which does not count."""
    recognizers = {name: build(path, precision, threads) for name, build in ENGINES.items()}
    sounds = pad(path, speech)
    found: dict[str, list[Timing]] = {name: [] for name in recognizers}
    for turn in range(turns + 1):
        for name in in_turn(recognizers, turn):
            found[name].append(decode(recognizers[name], sounds))
    timings = {name: rounds[1:] for name, rounds in found.items()}
    seconds = sum(map(len, sounds)) / RATE
    ratios = [
        theirs.seconds / ours.seconds
        for ours, theirs in zip(timings["ours"], timings["sherpa-onnx"], strict=True)
    ]
    ours, theirs = (rounds[-1].tokens for rounds in timings.values())
    return {
        "bundle": bundle,
        "precision": precision,
        "threads": threads,
        "tokens_per_second": round(sum(map(len, ours)) / seconds, 2),
        "same_tokens": ours == theirs,
        **quartiles(ratios),
        **{name: describe(rounds, seconds) for name, rounds in timings.items()},
        **{
            f"{name} alone": measure_alone(name, path, precision, sounds[0], threads)
            for name in recognizers
        },
    }


def describe(rounds: list[Timing], seconds: float) -> dict[str, float]:
    chunks = np.concatenate([timing.chunks_ms for timing in rounds])
    return {
        "rtf": round(median(timing.seconds for timing in rounds) / seconds, 5),
        "p50_ms": round(float(np.percentile(chunks, 50)), 3),
        "p95_ms": round(float(np.percentile(chunks, 95)), 3),
    }


def compare_together(
    bundle: str, path: Path, precision: str, num: int, speech: list[FloatArray], turns: int
) -> Row:
    """num streams at once through decode_streams(); seconds of sound for a second of work."""
    recognizers = {name: build(path, precision, 1) for name, build in ENGINES.items()}
    sounds = spread(speech, num, STREAM_SECONDS[num])
    seconds: dict[str, list[float]] = {name: [] for name in recognizers}
    for turn in range(turns):
        for name in in_turn(recognizers, turn):
            seconds[name].append(decode_together(recognizers[name], sounds))
    total = num * STREAM_SECONDS[num]
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["sherpa-onnx"], strict=True)]
    speeds = {name: round(total / median(times), 1) for name, times in seconds.items()}
    return {
        "bundle": bundle,
        "precision": precision,
        "streams": num,
        **quartiles(ratios),
        **{f"{name} speed": speed for name, speed in speeds.items()},
    }


def in_turn(recognizers: dict[str, Any], turn: int) -> list[str]:
    names = list(recognizers)
    return names if turn % 2 else names[::-1]


def quartiles(ratios: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return {"ratio": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


if __name__ == "__main__":
    main()
