"""Makes export/assets/latency.json: what layers cost, dense and in blocks, in fp32 and int8.

    python bench/latency.py [--quick] [--out FILE]     6 minutes on a core that does nothing else

One thread. `--quick` measures a corner of the table in seconds, compares it with the file of the
package and writes nothing. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from datetime import date
from itertools import product
from pathlib import Path

import numpy as np

from export.bundle import library_versions
from export.latency import SCHEMA, load_table
from export.stopwatch import PRECISIONS, Layer, measure_layers
from export.stopwatch_lstm import measure_gates, measure_lstm

ASSET = Path(__file__).parents[1] / "export" / "assets" / "latency.json"
AXES = {
    "inputs": [48, 128, 256, 512, 1024, 2048],
    "outputs": [48, 128, 256, 512, 1024, 2048],
    "rows": [1, 4, 8, 16],
    "shares": [0.05, 0.15, 0.4],
    "groups": [8, 16, 32, 64, 128, 256, 512],
    "hidden": [64, 128, 256, 512, 1024],
}
QUICK = {**AXES, "inputs": [128, 512], "outputs": [512, 2048], "rows": [1, 8], "hidden": [128, 512]}


def cases(inputs: int, outputs: int, axes: dict) -> Iterator[tuple[tuple, Layer]]:
    """(table, place in it after inputs and outputs) -> the layer that belongs there."""
    for precision, (r, rows) in product(PRECISIONS, enumerate(axes["rows"])):
        yield (f"dense.{precision}", r), Layer(inputs, outputs, rows, precision)
        for s, share in enumerate(axes["shares"]):
            kept = max(1, round(share * inputs))
            yield (f"one.{precision}", r, s), Layer(inputs, outputs, rows, precision, outputs, kept)
            for g, size in enumerate(axes["groups"]):
                if size < outputs and outputs % size == 0:
                    block = Layer(inputs, outputs, rows, precision, size, kept)
                    yield (f"blocks.{precision}", r, s, g), block


def measure_table(axes: dict, rounds: int) -> dict[str, np.ndarray]:
    """table -> microseconds; NaN where groups do not divide the outputs."""
    shape = tuple(len(axes[name]) for name in ("inputs", "outputs", "rows", "shares", "groups"))
    times = {}
    for precision in PRECISIONS:
        for name, num_axes in (("dense", 3), ("one", 4), ("blocks", 5)):
            times[f"{name}.{precision}"] = np.full(shape[:num_axes], np.nan)
    places = product(enumerate(axes["inputs"]), enumerate(axes["outputs"]))
    for (i, inputs), (o, outputs) in places:
        layers = dict(cases(inputs, outputs, axes))
        for (name, *place), microseconds in measure_layers(layers, rounds).items():
            times[name][(i, o, *place)] = microseconds
        dense = times["dense.fp32"][i, o, 0]
        print(f"{inputs:5} -> {outputs:5}, one row: dense fp32 {dense:7.1f} us", flush=True)
    return times | measure_lstms(axes, rounds)


def measure_lstms(axes: dict, rounds: int) -> dict[str, np.ndarray]:
    hidden, rows = axes["hidden"], axes["rows"]
    times = {
        f"lstm.{precision}": np.array(
            [[measure_lstm(size, num, precision, rounds) for num in rows] for size in hidden]
        )
        for precision in PRECISIONS
    }
    return times | {"gates": np.array([measure_gates(size, rounds) for size in hidden])}


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))


def write_table(axes: dict, times: dict[str, np.ndarray], path: Path) -> None:
    """Three digits: neighbouring runs differ by more than the fourth."""

    def plain(values):
        if isinstance(values, list):
            return [plain(value) for value in values]
        return None if np.isnan(values) else float(f"{values:.3g}")

    versions = library_versions()
    made = {
        "cpu": cpu_name(),
        "date": date.today().isoformat(),
        "threads": 1,
        "libraries": {name: versions[name] for name in ("onnxruntime", "onnx", "numpy")},
    }
    table = {name: plain(array.tolist()) for name, array in times.items()}
    values = {"schema": SCHEMA, "made": made, "axes": axes, "times": table}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, separators=(",", ":")) + "\n")


def compare(axes: dict, times: dict[str, np.ndarray]) -> dict[str, float]:
    """Median over the corner of the gain over dense measured now / gain by the packaged table."""
    table = load_table()
    ratios: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for i, o, r in np.ndindex(times["dense.fp32"].shape):
        size = axes["inputs"][i], axes["outputs"][o], axes["rows"][r]
        for precision, (s, share), (g, group) in product(
            PRECISIONS, enumerate(axes["shares"]), enumerate(axes["groups"])
        ):
            now = times[f"blocks.{precision}"][i, o, r, s, g]
            if not np.isnan(now):
                gain = times[f"dense.{precision}"][i, o, r] / now
                then = table.layer(*size, precision) / table.layer(
                    *size, precision, group, 1 - share
                )
                ratios[precision].append(gain / then)
    return {precision: round(float(np.median(values)), 3) for precision, values in ratios.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a corner, compared, not written")
    parser.add_argument("--out", type=Path, default=ASSET)
    arguments = parser.parse_args()
    start = time.perf_counter()
    axes = QUICK if arguments.quick else AXES
    times = measure_table(axes, rounds=3 if arguments.quick else 5)
    result = {"seconds": round(time.perf_counter() - start, 1), "cpu": cpu_name()}
    if arguments.quick:
        result["gain_now_over_table"] = compare(axes, times)
    else:
        write_table(axes, times, arguments.out)
        result["bytes"] = arguments.out.stat().st_size
        print(f"wrote {arguments.out}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
