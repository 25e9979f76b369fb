"""Loads and runs graphs in a process of their own: what onnxruntime dies of, it dies of there."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from onnx import TensorProto

import streaming
from export.interface import Graph, Tensor

TIMEOUT_SECONDS = 300
MAX_VALUES = 1 << 28  # of one input: 1 GB
INTEGERS = {int(TensorProto.INT64): "int64", int(TensorProto.INT32): "int32"}

OPEN_BUNDLE = """
import sys
import numpy as np
from streaming.bundle import read_bundle
from streaming.errors import InputError
from streaming.recognizer import Recognizer
try:
    info = read_bundle(sys.argv[1])
    for precision in info.files:
        recognizer = Recognizer(info, precision)
        session = recognizer.session
        shape = (2, info.chunk_frames, info.features.num_mel_bins)
        encoded, _ = session.encode(np.zeros(shape, np.float32), session.initial_state(2))
        labels = np.full(2, info.blank_id, np.int64)
        predicted, _ = session.predict(labels, session.empty_memory(2))
        logits = session.join(np.ascontiguousarray(encoded[:, 0]), predicted)
        if logits.shape != (2, info.vocab_size) or not np.isfinite(logits).all():
            raise InputError(f"{info.folder}: {precision} of two silent streams gives no finite "
                             "logits: export the bundle again")
except InputError as error:
    print(error)
except Exception as error:
    where = f"{sys.argv[1]}: {precision}"
    print(f"{where} does not run ({' '.join(str(error).split())[:200]}): export the bundle again")
"""

RUN_GRAPHS = """
import json, sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
for path, inputs in json.loads(sys.argv[1]):
    doing = "load"
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        doing = "run two streams of"
        if inputs:
            names = [value.name for value in session.get_inputs()]
            session.run(None, {n: np.zeros(*i) for n, i in zip(names, inputs)})
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        release = onnxruntime.__version__
        print(f"{path}: onnxruntime {release} cannot {doing} it ({reason}): export it again")
"""


def bundle_problems(folder: Path) -> list[str]:
    """What keeps any precision of a bundle from decoding two silent streams."""
    return _call(OPEN_BUNDLE, str(folder))


def graph_problems(graphs: Sequence[Graph], run: bool) -> list[str]:
    """The same of graphs alone. run: False where the sizes of their inputs are not known."""
    asked = []
    for graph in graphs:
        for value in graph.inputs:
            num_values = math.prod(size for size in value.shape if isinstance(size, int))
            if num_values > MAX_VALUES:
                return [f"{graph.path}: {value.name} is {list(value.shape)}: export it again"]
        asked.append((str(graph.path), [_fill(v) for v in graph.inputs] if run else []))
    return _call(RUN_GRAPHS, json.dumps(asked))


def _fill(value: Tensor) -> tuple[list[int], str]:
    """Shape for two streams, and type."""
    shape = [size if isinstance(size, int) else 2 for size in value.shape]
    return shape, INTEGERS.get(value.dtype, "float32")


def environment() -> dict[str, str]:
    """Of a child process that is to find our packages wherever this one found them."""
    home = str(Path(streaming.__file__).resolve().parents[1])
    search_path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": search_path}


def _call(code: str, argument: str) -> list[str]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, argument],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env=environment(),
        )
    except subprocess.TimeoutExpired:
        return [f"the model was not loaded within {TIMEOUT_SECONDS} s: export it again"]
    problems = done.stdout.splitlines()
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        problems.append(f"onnxruntime ended with {done.returncode} on it ({last}): export it again")
    return problems
