"""Bytes and speed of what the chains left: exported, packed, decoded side by side."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from compress.bundle import export_model, graph_bytes
from compress.data.cuts import read_samples
from compress.data.sets import real_cuts
from export.pack import pack_bundle
from shrinking.plan import Plan
from shrinking.table import DENSE
from streaming import open_bundle
from streaming.bundle import read_bundle

ROUNDS = 5
SECONDS = 30.0


def measure_sizes(plan: Plan, patterns: list[str]) -> dict[tuple[str, float], dict[str, Any]]:
    """(pattern, level) -> bytes and the ratio of real-time factors, of the first seed's student,
    where it is there."""
    bundles: dict[tuple[str, float], Path] = {}
    for pattern in patterns:
        for level in plan.levels:
            model = plan.cell(pattern, True, 0) / f"{level:g}"
            if not (model / "result.json").exists():
                continue
            bundles[pattern, level] = model / "bundle"
            if not bundles[pattern, level].exists():
                export_model(model, bundles[pattern, level])
    dense = plan.out / "teacher" / "bundle"
    if not dense.exists():
        export_model(plan.out / "teacher", dense)
    ratios = compare_speed(dense, bundles, speech(plan))
    bundles[DENSE, 0.0] = dense
    return {
        key: {
            "onnx_bytes": graph_bytes(bundle, read_bundle(bundle)),
            "packed_bytes": packed_bytes(bundle),
            "rtf_ratio_to_dense_fp32": ratios[key],
            "rtf_ratio_to_dense_int8": ratios[key] / ratios[DENSE, 0.0],
        }
        for key, bundle in bundles.items()
    }


def packed_bytes(bundle: Path) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "bundle.pack"
        pack_bundle(bundle, file)
        return file.stat().st_size


def speech(plan: Plan) -> np.ndarray:
    """Half a minute of the first pack's test split."""
    pieces, length = [], 0
    for cut in real_cuts(str(plan.packs / "speech_commands"), "test"):
        pieces.append(read_samples(cut))
        length += len(pieces[-1])
        if length >= SECONDS * 16_000:
            break
    return np.concatenate(pieces)


def compare_speed(
    dense: Path, bundles: dict[tuple[str, float], Path], samples: np.ndarray
) -> dict[tuple[str, float], float]:
    """Time relative to the dense fp32 bundle: medians of rounds in which all take turns."""
    reference = open_bundle(dense, precision="fp32")
    recognizers = {key: open_bundle(path) for key, path in bundles.items()}
    recognizers[DENSE, 0.0] = open_bundle(dense)
    times: dict[tuple[str, float], list[float]] = {key: [] for key in recognizers}
    for _ in range(ROUNDS):
        for key, recognizer in recognizers.items():
            ours, theirs = decode_seconds(recognizer, samples), decode_seconds(reference, samples)
            times[key].append(ours / theirs)
    return {key: statistics.median(ratios) for key, ratios in times.items()}


def decode_seconds(recognizer: Any, samples: np.ndarray) -> float:
    stream = recognizer.create_stream()
    stream.accept_waveform(16_000, samples)
    stream.input_finished()
    begun = time.perf_counter()
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    return time.perf_counter() - begun
