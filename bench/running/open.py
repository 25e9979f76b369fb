"""streaming/ and sherpa-onnx, opened on the same files; neither imports the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def open_ours(bundle: Path, precision: str, num_threads: int) -> Any:
    import streaming

    return streaming.open_bundle(bundle, precision, num_threads)


def open_sherpa(bundle: Path, precision: str, num_threads: int) -> Any:
    import sherpa_onnx

    info = json.loads((bundle / "bundle.json").read_text())
    graphs = {graph: str(bundle / name) for graph, name in info["files"][precision].items()}
    return sherpa_onnx.OnlineRecognizer.from_transducer(
        tokens=str(bundle / "tokens.txt"),
        num_threads=num_threads,
        feature_dim=info["features"]["num_mel_bins"],
        **graphs,
    )


ENGINES = {"ours": open_ours, "sherpa-onnx": open_sherpa}
