"""A bundle decoded by sherpa-onnx, in a process of its own: what it dislikes, it dies of.

Needs the package sherpa-onnx (extra dev). Used to prove that a bundle gives the same tokens there.

fp32 tokens are the same whichever release of onnxruntime each side has. int8 tokens are, too, when
both have the same one. Between 1.28 and 1.31 the last bit of LayerNormalization differs, now and
then that turns an activation to the next of its 256 steps: about 1 token in 1,000 of random
models came out another.
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
import onnxruntime

from export.agreement import token_agreement
from export.errors import ExportError
from streaming.bundle import TOKENS_FILE, BundleInfo, read_bundle
from streaming.features import FloatArray
from streaming.recognizer import Recognizer
from streaming.tokens import WORD_START

CLIENT = """
import json, sys
import numpy as np
import onnxruntime
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
version = getattr(sherpa_onnx, "onnxruntime_version", "unknown")
print(json.dumps({"results": results, "onnxruntime": version}))
"""


@dataclass(frozen=True)
class SherpaResult:
    """tokens: pieces as in tokens.txt, but `▁` is a space; timestamps in seconds."""

    tokens: list[str]
    timestamps: list[float]


@dataclass(frozen=True)
class SherpaRun:
    """One result an utterance, and the release of onnxruntime inside sherpa-onnx."""

    results: list[SherpaResult]
    onnxruntime: str


def decode_with_sherpa(
    folder: Path | str,
    samples: Sequence[FloatArray],
    precision: str | None = None,
    timeout_seconds: float = 600,
) -> SherpaRun:
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
    answer = json.loads(done.stdout.splitlines()[-1])
    return SherpaRun([SherpaResult(*result) for result in answer["results"]], answer["onnxruntime"])


def compare_with_sherpa(
    folder: Path | str,
    samples: Sequence[FloatArray],
    precision: str | None = None,
    min_agreement: float = 0.99,
) -> dict[str, Any]:
    """A row of the parity ladder: streaming/ against sherpa-onnx, token for token.

    max_error is the largest difference of time stamps, in seconds, of equal utterances;
    different: the numbers of the utterances whose tokens are not equal. min_agreement is for
    int8 with two releases of onnxruntime; in every other case all tokens must be the same.
    """
    info = read_bundle(folder)
    precision = precision or info.default_precision
    recognizer = Recognizer(info, precision)
    ours = []
    for utterance in samples:
        stream = recognizer.create_stream()
        stream.accept(utterance)
        stream.finish()
        ours.append(recognizer.get_result_all(stream))
    run = decode_with_sherpa(folder, samples, precision)
    theirs = run.results
    same_kernels = run.onnxruntime.split(".")[:2] == onnxruntime.__version__.split(".")[:2]
    mine = [[token.replace(WORD_START, " ") for token in result.tokens] for result in ours]
    different = [i for i, t in enumerate(theirs) if t.tokens != mine[i]]
    times = [
        abs(a - b)
        for i, t in enumerate(theirs)
        # Its NeMo family leaves <unk> out of the tokens, but not out of the time stamps.
        if i not in different and len(t.timestamps) == len(t.tokens)
        for a, b in zip(t.timestamps, ours[i].timestamps, strict=True)
    ]
    ids = {token: index for index, token in enumerate({t for row in mine for t in row})}
    agreement = token_agreement(
        [[ids[token] for token in row] for row in mine],
        [[ids.get(token, -1) for token in t.tokens] for t in theirs],
    )
    exact = same_kernels or precision == "fp32"
    return {
        "from": f"streaming {precision}",
        "to": f"sherpa-onnx {precision}",
        "utterances": len(mine),
        "tokens": sum(map(len, mine)),
        "max_error": max(times, default=0.0),
        "token_agreement": agreement,
        "different": different,
        "onnxruntime": [onnxruntime.__version__, run.onnxruntime],
        "passed": not different if exact else agreement >= min_agreement,
    }


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
