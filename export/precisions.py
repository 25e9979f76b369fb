"""The precisions of a bundle: its fp32 graphs written beside them in other forms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from export.names import PREFIXES, split_by_graph
from export.quantize import METHODS, Method, Ranges, calibrate, list_layers, quantize_graph
from export.targets.exported import FILES
from streaming.bundle import BundleInfo
from streaming.features import FloatArray


def quantize_bundle(
    info: BundleInfo,
    method: Method,
    forms: Mapping[str, str],
    calibration: Sequence[FloatArray],
    learned: Ranges,
    per_channel: bool,
) -> tuple[BundleInfo, list[dict[str, Any]]]:
    """`info` of the fp32 graphs with another precision, and all layers as its files hold them."""
    if method == "none":
        return info, [layer for graph in FILES for layer in list_fp32(info, graph)]
    if method == "qat":
        return _add_learned(info, forms, learned, per_channel)
    static = "static" in (METHODS[method], *forms.values())
    return add_precision(
        info, method, forms, calibrate(info, calibration) if static else {}, per_channel
    )


def _add_learned(
    info: BundleInfo, forms: Mapping[str, str], learned: Ranges, per_channel: bool
) -> tuple[BundleInfo, list[dict[str, Any]]]:
    """Layers with a learned range become static, and say so."""
    forms = {**dict.fromkeys(learned, "static"), **forms}
    ranges = split_by_graph(learned, "learned ranges")
    info, layers = add_precision(info, "qat", forms, ranges, per_channel)
    for layer in layers:
        if layer["form"] == "static":
            layer["learned_range"] = list(learned[layer["name"]])
    return info, layers


def list_fp32(info: BundleInfo, graph: str) -> list[dict[str, Any]]:
    """Layers of an fp32 graph, named as in torch's state dict."""
    layers = list_layers(onnx.load(info.graph_path(graph, "fp32")))
    return [{**layer, "name": PREFIXES[graph] + layer["name"]} for layer in layers]


def add_precision(
    info: BundleInfo,
    method: Method,
    forms: Mapping[str, str],
    ranges: Mapping[str, Ranges],
    per_channel: bool = True,
) -> tuple[BundleInfo, list[dict[str, Any]]]:
    """Writes the fp32 graphs of a folder beside them in other forms; returns `info` with that
    precision, called `method`, as its default, and its layers.

    forms: layer, named as in torch's state dict -> form. ranges: graph -> what calibrate() found.
    """
    folder = info.folder
    assert folder is not None
    names = {graph: f"{graph}.{method}.onnx" for graph in FILES}
    by_graph = split_by_graph(forms, "forms")
    layers: list[dict[str, Any]] = []
    for graph, source in FILES.items():
        found = quantize_graph(
            folder / source,
            folder / names[graph],
            METHODS[method],
            by_graph.get(graph, {}),
            ranges.get(graph, {}),
            per_channel,
        )
        layers += [{**layer, "name": PREFIXES[graph] + layer["name"]} for layer in found]
    files = {**info.files, method: names}
    return dataclasses.replace(info, files=files, default_precision=method), layers
