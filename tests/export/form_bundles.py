"""Bundles of both targets that hold every precision, and their other forms."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

from export.bundle import complete_bundle
from export.convert import FORMS, convert_bundle
from export.quantize import calibrate, quantize_graph
from export.targets.exported import FILES
from streaming.bundle import read_bundle
from streaming.features import compute_features
from tests.export.conftest import make_speech

# A Conformer for one target, an LSTM encoder for the other: both encoders, both predictors.
SOURCES = {"sherpa_lstm": "conformer", "sherpa_nemo": "lstm"}
PRECISIONS = ("fp32", "int8", "int4", "static")


def build_forms(
    bundles: Mapping[str, Mapping[str, Path]], place: Path
) -> dict[tuple[str, str], Path]:
    """(target, form) -> a bundle with fp32, int8, int4 and static graphs, below `place`.

    bundles: target -> kind of encoder -> a bundle with fp32 and int8 graphs.
    """
    folders = {}
    for target, kind in SOURCES.items():
        folder = folders[target, "onnx"] = place / f"{target}-onnx"
        shutil.copytree(bundles[target][kind], folder)
        add_precisions(folder)
        for form in FORMS:
            folders[target, form] = place / f"{target}-{form}"
            convert_bundle(folder, form, folders[target, form])
    return folders


def add_precisions(folder: Path) -> None:
    info = read_bundle(folder)
    heard = [compute_features(make_speech(24000, seed), info.features) for seed in range(3)]
    ranges, files = calibrate(info, heard), dict(info.files)
    for method in PRECISIONS[2:]:
        files[method] = {graph: f"{graph}.{method}.onnx" for graph in FILES}
        for graph, name in FILES.items():
            quantize_graph(folder / name, folder / files[method][graph], method, {}, ranges[graph])
    complete_bundle(dataclasses.replace(info, files=files), folder)
