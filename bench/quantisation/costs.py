"""What each variant of a model costs against its fp32 graphs: word errors, bytes, time, memory."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from compress.data.sets import read_utterances, real_cuts, spread
from compress.difference import Sets, compare_texts, decode
from compress.evaluate import word_error_rate
from compress.measure import measure_alone
from compress.progress import track
from quantisation.variants import Plan
from shrinking.sizes import SECONDS, decode_seconds
from streaming import Recognizer
from streaming.bundle import read_bundle

ROUNDS = 7
EXACT = "fp32"
Row = dict[str, Any]


def read_sets(plan: Plan) -> dict[str, Any]:
    """Utterances to judge by."""
    sets = {}
    for pack, split in plan.sets.items():
        cuts = real_cuts(str(plan.packs / pack), split)
        some = read_utterances(spread(cuts, plan.num))
        sets[f"{pack}/{split}"] = [one for one in some if one[2].split()]
    return sets


def measure_words(model: str, bundles: Mapping[str, Path], sets: Sets) -> list[Row]:
    """A row for each set and variant, fp32 first; differences are paired over utterances."""
    rows = []
    for name, utterances in track(sets.items(), f"{model}: word errors", len(sets)):
        said = [text for _, _, text in utterances]
        first = read_bundle(next(iter(bundles.values())))
        exact = decode(first, EXACT, utterances)
        for variant, heard in [(EXACT, exact), *decode_all(bundles, utterances)]:
            rate = word_error_rate(said, heard)
            difference = compare_texts(name, variant, said, exact, heard)
            relative = difference.difference / max(difference.wer_fp32, 1e-9)
            rows.append(
                {"model": model, "data": name, "variant": variant}
                | {key: asdict(rate)[key] for key in ("wer", "low", "high", "words")}
                | {"difference": difference.difference, "relative": relative}
                | {"difference_low": difference.low, "difference_high": difference.high}
            )
    return rows


def decode_all(bundles: Mapping[str, Path], utterances: Any) -> list[tuple[str, list[str]]]:
    return [
        (variant, decode(read_bundle(bundle), variant, utterances))
        for variant, bundle in bundles.items()
    ]


def measure_costs(model: str, bundles: Mapping[str, Path], sets: Sets) -> list[Row]:
    """A row for each variant: bytes, and times as ratios of fp32's in rounds of taking turns."""
    infos = {variant: read_bundle(bundle) for variant, bundle in bundles.items()}
    first = next(iter(infos))
    places = {EXACT: (infos[first], EXACT)} | {v: (info, v) for v, info in infos.items()}
    recognizers = {v: Recognizer(info, precision) for v, (info, precision) in places.items()}
    samples = some_speech(sets)
    times: dict[str, list[float]] = {variant: [] for variant in places}
    alone: dict[str, list[tuple[float, float]]] = {variant: [] for variant in places}
    for _ in track(range(ROUNDS), f"{model}: time and memory", ROUNDS):
        for variant, recognizer in recognizers.items():
            times[variant].append(decode_seconds(recognizer, samples))
        for variant, (info, precision) in places.items():
            alone[variant].append(measure_alone(info.folder, samples[: 16000 * 3], precision))
    return [
        describe(model, variant, info, precision, times, alone, len(samples) / 16000)
        for variant, (info, precision) in places.items()
    ]


def describe(
    model: str,
    variant: str,
    info: Any,
    precision: str,
    times: Mapping[str, list[float]],
    alone: Mapping[str, list[tuple[float, float]]],
    seconds: float,
) -> Row:
    ratios = np.divide(times[variant], times[EXACT])
    load_ms, peak_mb = (statistics.median(part) for part in zip(*alone[variant], strict=True))
    exact_load_ms = statistics.median(load for load, _ in alone[EXACT])
    return {
        "model": model,
        "variant": variant,
        "onnx_bytes": sum(
            info.graph_path(g, precision).stat().st_size for g in info.files[precision]
        ),
        "rtf": statistics.median(times[variant]) / seconds,
        "rtf_ratio_to_fp32": float(np.median(ratios)),
        "load_ms": load_ms,
        "load_ratio_to_fp32": load_ms / exact_load_ms,
        "peak_rss_mb": peak_mb,
    }


def some_speech(sets: Sets) -> np.ndarray:
    """Half a minute of the first set."""
    pieces: list[np.ndarray] = []
    for _, samples, _ in next(iter(sets.values())):
        pieces.append(samples)
        if sum(map(len, pieces)) >= SECONDS * 16_000:
            break
    return np.concatenate(pieces)
