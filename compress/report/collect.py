"""report.json out of what the stages of a run left."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.run import Run
from compress.trainer import read_log


def read_curves(run: Run) -> dict[str, list[dict[str, float]]]:
    logs = {"student": "shrink", "without distillation": "compare", "with rounding": "quantize"}
    curves = {name: read_log(run.folder / stage / "log.jsonl") for name, stage in logs.items()}
    return {name: rows for name, rows in curves.items() if rows}


def build_report(run: Run) -> dict[str, Any]:
    """report.json, see docs; WER is a fraction with its 95 % interval."""
    shrunk, verified, exported = run.result("shrink"), run.result("verify"), run.result("export")
    weights = Path(run.config.teacher) / "model.safetensors"
    return {
        "schema": 1,
        "seed": run.config.recipe.seed,
        "command": ["compress", *sys.argv[1:]],
        "teacher": {
            "parameters": run.teacher.num_parameters,
            "bytes": weights.stat().st_size,
            "wer": run.result("prepare")["teacher_wer"],
        },
        "student": {
            "parameters": shrunk["parameters"],
            "prunable_sparsity": shrunk["prunable_sparsity"],
            "total_sparsity": shrunk["total_sparsity"],
            "wer": shrunk["wer"],
            "layers": exported["layers"],
        },
        "student_without_distillation": run.result("compare") if run.config.compare else None,
        "student_with_rounding": run.result("quantize") if run.config.quantize == "qat" else None,
        "bundle": {
            "path": "bundle",
            "onnx_bytes": exported["onnx_bytes"],
            "packed_bytes": verified["packed_bytes"],
            "wer": verified["wer"],
            "rtf": verified["rtf"],
            "chunk_ms": percentiles(verified["chunk_ms"]),
            "load_ms": verified["load_ms"],
            "peak_rss_mb": verified["peak_rss_mb"],
        },
        "chunks": verified["chunks"],
        "parity": verified["parity"],
        "seconds": read_seconds(run),
    }


def read_seconds(run: Run) -> dict[str, float]:
    """Of every stage that is finished, in the order they ended."""
    done = sorted(run.folder.glob("*/done.json"), key=lambda path: path.stat().st_mtime_ns)
    return {path.parent.name: json.loads(path.read_text())["seconds"] for path in done}


def percentiles(chunk_ms: Sequence[float]) -> dict[str, float]:
    ordered = sorted(chunk_ms)
    return {"p50": ordered[len(ordered) // 2], "p95": ordered[int(len(ordered) * 0.95)]}
