"""What a layer costs in each form, from a measured table; which groups of rows gain enough.

# Letters: K inputs, P outputs, S rows of a call, H hidden units, G rows a group.

The table is a file of the package (assets/latency.json), so that a run chooses the same groups on
every machine; `python bench/latency.py` measures it anew. Between its shapes the logarithm of the
time is linear in the logarithm of each size, and so it goes on above the largest; below the
smallest, and for larger groups than it has, the last one counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from export.stopwatch import PRECISIONS, Precision

SCHEMA = 1
SMALLEST_GROUP = 8  # below, indices and padding take most of what the zeros save
MIN_GAIN = 1.2  # times as fast as the dense layer of the same precision
NEAR_BEST = 1.25  # of the time of the fastest groups: finer ones lose fewer words
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LatencyTable:
    """axes: "inputs", "outputs", "rows", "shares" (kept), "groups" (G), "hidden" -> ascending.

    times, microseconds on one thread, with the axes that each has in this order:
        dense.P   inputs, outputs, rows               P is fp32 or int8
        one.P     inputs, outputs, rows, shares       one group: all rows share their columns
        blocks.P  inputs, outputs, rows, shares, groups
        lstm.P    hidden, rows                        the LSTM operator, as many inputs as hidden
        gates     hidden                              what a frame costs beside its products
    """

    axes: Mapping[str, Sequence[float]]
    times: Mapping[str, Array]
    made: Mapping[str, Any]

    def layer(
        self,
        inputs: int,
        outputs: int,
        rows: int,
        precision: Precision,
        group_rows: int | None = None,
        sparsity: float = 0.0,
    ) -> float:
        """Microseconds of one call; group_rows None is the dense layer, whatever its zeros."""
        size: dict[str, float] = {"inputs": inputs, "outputs": outputs, "rows": rows}
        if group_rows is None:
            return self._look_up(f"dense.{precision}", size)
        size["shares"] = max(1 - sparsity, 1 / inputs)
        if group_rows == outputs:
            return self._look_up(f"one.{precision}", size)
        size["groups"] = min(group_rows, self.axes["groups"][-1])
        return self._look_up(f"blocks.{precision}", size)

    def lstm(
        self,
        inputs: int,
        hidden: int,
        rows: int,
        precision: Precision,
        group_rows: int | None = None,
        sparsity: float = 0.0,
    ) -> float:
        """Microseconds of an LSTM over `rows` frames: the operator, or unrolled in blocks."""
        if group_rows is None:
            square = self._look_up(f"lstm.{precision}", {"hidden": hidden, "rows": rows})
            return square * (inputs + hidden) / (2 * hidden)
        outputs = 4 * hidden
        all_frames = self.layer(inputs, outputs, rows, precision, group_rows, sparsity)
        one_frame = self.layer(hidden, outputs, 1, precision, group_rows, sparsity)
        return all_frames + rows * (one_frame + self._look_up("gates", {"hidden": hidden}))

    def _look_up(self, name: str, size: Mapping[str, float]) -> float:
        return interpolate(self.times[name], [(self.axes[axis], size[axis]) for axis in size])


def interpolate(times: Array, places: Sequence[tuple[Sequence[float], float]]) -> float:
    """Linear in logarithms along each axis: ([[1, 4], [4, 16]], at (3, 3) of 1..9) gives 4."""
    logs = np.log(times)
    for points, value in places:
        place = max(value, points[0])
        high = int(np.clip(np.searchsorted(points, place), 1, len(points) - 1))
        low_point, high_point = points[high - 1], points[high]
        part = math.log(place / low_point) / math.log(high_point / low_point)
        logs = (1 - part) * logs[high - 1] + part * logs[high]
    return float(np.exp(logs))


def choose_group(
    table: LatencyTable,
    inputs: int,
    outputs: int,
    rows: int,
    sparsity: float,
    precision: Precision = "int8",
) -> int | None:
    """The smallest G that is MIN_GAIN times as fast as the dense layer of the same precision and
    takes at most NEAR_BEST times as long as the fastest; None where none gains: leave it dense.

    G divides `outputs`. G = outputs, one group, is taken only where several gain nothing: it is
    always fastest, but then all rows must make do with the same columns.
    """
    dense_us = table.layer(inputs, outputs, rows, precision)
    times = {
        group_rows: table.layer(inputs, outputs, rows, precision, group_rows, sparsity)
        for group_rows in divisors(outputs)
    }
    several = {group_rows: us for group_rows, us in times.items() if group_rows < outputs}
    chosen = smallest_of_the_fast(several, dense_us / MIN_GAIN)
    return chosen or smallest_of_the_fast(times, dense_us / MIN_GAIN)


def choose_lstm_group(
    table: LatencyTable,
    inputs: int,
    hidden: int,
    rows: int,
    sparsity: float,
    precision: Precision = "int8",
) -> int | None:
    """As `choose_group`, for an LSTM of one layer over `rows` frames; G divides `hidden`."""
    times = {
        group_rows: table.lstm(inputs, hidden, rows, precision, group_rows, sparsity)
        for group_rows in divisors(hidden)
    }
    dense_us = table.lstm(inputs, hidden, rows, precision)
    return smallest_of_the_fast(times, dense_us / MIN_GAIN)


def divisors(outputs: int) -> list[int]:
    """Groups to choose from: the divisors from 8 on. 48 gives 8, 12, 16, 24, 48."""
    return [size for size in range(SMALLEST_GROUP, outputs + 1) if outputs % size == 0]


def smallest_of_the_fast(times: Mapping[int, float], limit_us: float) -> int | None:
    """{8: 9.0, 16: 6.0, 32: 5.0} within 7.0, and 1.25 of the best, gives 16."""
    fast = {size: us for size, us in times.items() if us <= limit_us}
    best = min(fast.values(), default=0.0)
    return min((size for size, us in fast.items() if us <= NEAR_BEST * best), default=None)


def load_table(path: Path | str | None = None) -> LatencyTable:
    """The package's table, or one that bench/latency.py has written.

    Raises ExportError for a file that is none.
    """
    source = Path(path) if path else resources.files("export") / "assets" / "latency.json"
    try:
        return read_table(json.loads(source.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"{source}: no latency table ({error}): make one with python bench/latency.py"
        ) from error


def read_table(values: Mapping[str, Any]) -> LatencyTable:
    """Groups that a layer is too small for (null in the file) take the next smaller one's time."""
    if values["schema"] != SCHEMA:
        raise ValueError(f"schema {values['schema']}, wanted {SCHEMA}")
    times = {name: np.array(array, dtype=np.float64) for name, array in values["times"].items()}
    for precision in PRECISIONS:
        blocks = times[f"blocks.{precision}"]
        for group in range(1, blocks.shape[-1]):
            missing = np.isnan(blocks[..., group])
            blocks[..., group][missing] = blocks[..., group - 1][missing]
    for name, array in times.items():
        if not np.isfinite(array).all() or (array <= 0).any():
            raise ValueError(f"{name} holds times that are none")
    return LatencyTable(values["axes"], times, values["made"])
