"""Loading time and peak memory of an engine, in a process of its own that does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from export.loading import environment
from streaming.features import FloatArray

SCRIPT = """
import json, sys, time
from pathlib import Path
import numpy as np
engine, bundle, precision, num_threads = sys.argv[1:]
samples = np.frombuffer(sys.stdin.buffer.read(), dtype=np.float32)
if engine == "ours":
    import streaming
else:
    import sherpa_onnx
from running.open import ENGINES
start = time.perf_counter()
recognizer = ENGINES[engine](Path(bundle), precision, int(num_threads))
load_ms = 1000 * (time.perf_counter() - start)
stream = recognizer.create_stream()
for begin in range(0, len(samples), 1600):
    stream.accept_waveform(16000, samples[begin : begin + 1600])
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
with open("/proc/self/status") as file:
    peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
print(json.dumps({"load_ms": load_ms, "peak_rss_mb": peak / 1e6}))
"""


def measure_alone(
    engine: str, bundle: Path, precision: str, samples: FloatArray, num_threads: int = 1
) -> dict[str, float]:
    """{"load_ms", "peak_rss_mb"}: opening the bundle, imports excluded; all memory of the process.

    Hashes are checked by ours and not by sherpa-onnx.
    """
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, engine, str(bundle), precision, str(num_threads)],
        input=np.ascontiguousarray(samples, dtype=np.float32).tobytes(),
        capture_output=True,
        env=environment()
        | {"PYTHONPATH": f"{Path(__file__).parents[2]}:{Path(__file__).parents[1]}"},
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured
