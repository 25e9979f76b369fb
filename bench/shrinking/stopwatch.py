"""Files that take turns on one thread: times, ratios inside one run, bytes, peak memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

TURN_SECONDS = 0.004
Row = dict[str, Any]

ALONE = """
import json, sys
import numpy as np
import onnxruntime

def held(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

path, shapes = sys.argv[1], json.loads(sys.argv[2])
feed = {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
before = held("VmRSS")
session = onnxruntime.InferenceSession(path, options)
for _ in range(3):
    session.run(None, feed)
print(held("VmHWM") - before)
"""


@dataclass
class Case:
    """A file and the inputs to run it with; `labels` begin its row. seconds: of a call, by turn."""

    path: Path
    feed: dict[str, np.ndarray]
    labels: Row
    seconds: list[float] = field(default_factory=list)
    calls: int = 1

    def open(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(self.path), options)
        self._run(3)
        self.calls = max(1, round(TURN_SECONDS / self._run(3)))

    def turn(self) -> None:
        self.seconds.append(self._run(self.calls))

    def _run(self, calls: int) -> float:
        """In time of the processor: the machine may have other work."""
        start = time.thread_time()
        for _ in range(calls):
            self.session.run(None, self.feed)
        return (time.thread_time() - start) / calls

    def peak_mb(self) -> float:
        """Of a fresh process, loading included, beyond what it held with the libraries loaded."""
        shapes = json.dumps({name: array.shape for name, array in self.feed.items()})
        command = [sys.executable, "-c", ALONE, str(self.path), shapes]
        return int(subprocess.run(command, capture_output=True, check=True).stdout) / 1e6


def compare(cases: list[Case], turns: int) -> list[Row]:
    """A row for each case. The first two are dense, in fp32 and in int8.

    A ratio is the median over turns of the dense one's time divided by this one's.
    """
    for case in cases:
        case.open()
    for _ in range(turns):
        for case in cases:
            case.turn()
    return [describe(case, cases[0], cases[1]) for case in cases]


def describe(case: Case, dense: Case, dense_int8: Case) -> Row:
    fp32, int8 = (
        float(np.median(np.divide(one.seconds, case.seconds))) for one in (dense, dense_int8)
    )
    num_bytes = case.path.stat().st_size
    return {
        **case.labels,
        "ms": round(1000 * statistics.median(case.seconds), 4),
        "ratio_to_dense_fp32": round(fp32, 2),
        "ratio_to_dense_int8": round(int8, 2),
        "bytes": num_bytes,
        "bytes_ratio": round(dense.path.stat().st_size / num_bytes, 2),
        "peak_mb": round(case.peak_mb(), 1),
    }
