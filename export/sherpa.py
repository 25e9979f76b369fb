"""A bundle decoded by sherpa-onnx, in a process of its own: what it dislikes, it dies of.

Needs the package sherpa-onnx (extra dev). Used to prove that a bundle gives the same tokens there.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError
from streaming.bundle import TOKENS_FILE, BundleInfo, read_bundle
from streaming.features import FloatArray

CLIENT = """
import json, sys
import numpy as np
import sherpa_onnx

settings = json.loads(sys.argv[1])
recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(**settings["recognizer"])
results = []
with np.load(settings["samples"]) as samples:
    for name in sorted(samples.files):
        stream = recognizer.create_stream()
        stream.accept_waveform(settings["sample_rate"], samples[name])
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
        result = recognizer.get_result_all(stream)
        results.append([list(result.tokens), list(result.timestamps)])
print(json.dumps(results))
"""


@dataclass(frozen=True)
class SherpaResult:
    """tokens: pieces as in tokens.txt, but `▁` is a space; timestamps in seconds."""

    tokens: list[str]
    timestamps: list[float]


def decode_with_sherpa(
    folder: Path | str,
    samples: Sequence[FloatArray],
    precision: str | None = None,
    timeout_seconds: float = 600,
) -> list[SherpaResult]:
    """Results of utterances (num_samples,) at the bundle's rate, padded as streaming/ pads them.

    Raises ExportError when sherpa-onnx is not installed or its process dies.
    """
    if importlib.util.find_spec("sherpa_onnx") is None:
        raise ExportError("sherpa-onnx is not installed: pip install sherpa-onnx")
    info = read_bundle(folder)
    graphs = {g: str(info.graph_path(g, precision or info.default_precision)) for g in info.tensors}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "samples.npz"
        padded: dict[str, Any] = {f"{i:06}": pad_samples(info, s) for i, s in enumerate(samples)}
        np.savez(file, **padded)
        settings = {
            "samples": str(file),
            "sample_rate": info.features.sample_rate,
            "recognizer": {
                "tokens": str(Path(folder) / TOKENS_FILE),
                **graphs,
                "num_threads": 1,
                "feature_dim": info.features.num_mel_bins,
            },
        }
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, json.dumps(settings)],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
        )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise ExportError(
            f"{folder}: sherpa-onnx ended with {done.returncode} ({lines[-1][:200]}): "
            "run validate_bundle to see why"
        )
    return [SherpaResult(*result) for result in json.loads(done.stdout.splitlines()[-1])]


def pad_samples(info: BundleInfo, samples: FloatArray) -> FloatArray:
    """Appends the silence that a stream's end appends in streaming/, plus half a chunk.

    sherpa-onnx decodes a chunk only when one frame more is there; half a chunk more gives it
    that frame without another chunk.
    """
    settings = info.features
    num_frames = settings.num_frames(len(samples)) + info.tail_frames
    num_chunks = -(-num_frames // info.chunk_frames)
    padded = settings.num_samples(num_chunks * info.chunk_frames + info.chunk_frames // 2)
    return np.pad(samples.astype(np.float32), (0, max(0, padded - len(samples))))
