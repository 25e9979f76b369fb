"""How long a layer takes in each form: its matrix alone in a graph, timed on this machine.

Layers of one size are timed once. The graphs hold several copies of the matrix (stopwatch.py) and
go through the same quantiser as the real ones. A convolution or an embedding is computed in fp32
whatever its form, and counts nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import onnx
import onnx_ir as ir

from export.quantize.graph import quantize_graph
from export.quantize.layers import LayerInfo, find_inputs, list_layers, storage
from export.sparse_graph import load_ir
from export.stopwatch import Layer, Timed, build_layer, open_session
from export.stopwatch_lstm import measure_lstm
from streaming.bundle import GRAPHS, BundleInfo

ROUNDS = 5
RANGE = (-4.0, 4.0)  # what a layer reads does not change its time


class Times:
    """Microseconds of the layers of a bundle's fp32 graphs; calls: graph -> calls a chunk."""

    def __init__(self, info: BundleInfo, calls: Mapping[str, float]) -> None:
        self._calls = calls
        self._layers: dict[tuple[str, str], LayerInfo] = {}
        self._rows: dict[tuple[str, str], list[int]] = {}
        for graph in GRAPHS:
            model = onnx.load(info.graph_path(graph, "fp32"))
            rows = count_rows(model)
            for layer in list_layers(model):
                self._layers[graph, layer["name"]] = layer
                self._rows[graph, layer["name"]] = rows.get(layer["name"], [])

    def measure(self, graph: str, names: Sequence[str], form: str) -> float:
        """Of all calls for a chunk of speech, by a node that reads the weights `names`."""
        layer, rows = self._layers[graph, names[0]], self._rows[graph, names[0]]
        if storage(layer) == "lstm":
            return self._calls[graph] * self._measure_lstm(graph, names, form)
        if storage(layer) not in ("linear", "blocks"):
            return 0.0
        products = [describe_product(layer, some) for some in rows]
        return self._calls[graph] * sum(time_product(product, form) for product in products)

    def _measure_lstm(self, graph: str, names: Sequence[str], form: str) -> float:
        """All frames of a call, scaled from as many inputs as hidden units to what there are."""
        shapes = [self._layers[graph, name]["shape"] for name in names]
        hidden = shapes[0][0] // 4
        inputs = sum(shape[1] for shape in shapes)
        rows = self._rows[graph, names[0]][0] if self._rows[graph, names[0]] else 1
        return time_lstm(hidden, rows, form) * inputs / (2 * hidden)


def count_rows(model: onnx.ModelProto) -> dict[str, list[int]]:
    """layer -> rows of one stream in each product by its matrix; an LSTM's are its frames."""
    graph = load_ir(model).graph
    values = {layer: list(found) for layer, found in find_inputs(graph).items()}
    for node in graph:
        if node.op_type == "LSTM":
            name = (node.inputs[1].name if node.inputs[1] else "") or ""
            values[name.removesuffix(".weight")] = [v for v in node.inputs[:1] if v is not None]
    return {layer: [rows_of(value) for value in found] for layer, found in values.items()}


def rows_of(value: ir.Value) -> int:
    """The product of all axes but the last that are fixed: (N, 8, 192) has 8."""
    rows = 1
    for size in list(value.shape or ())[:-1]:
        rows *= size if isinstance(size, int) else 1
    return rows


def describe_product(layer: LayerInfo, rows: int) -> Layer:
    outputs, inputs = layer["shape"][0], layer["shape"][1]
    inputs *= layer["shape"][2] if len(layer["shape"]) > 2 else 1
    group_rows = layer.get("block_rows")
    kept = max(1, round((1 - layer["sparsity"]) * inputs)) if group_rows else 0
    return Layer(inputs, outputs, rows, "fp32", group_rows, kept)


@cache
def time_product(layer: Layer, form: str) -> float:
    """Microseconds of one call, at its quickest."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "form.onnx"
        onnx.save(ir.to_proto(build_layer(layer)), source)
        names = [found["name"] for found in list_layers(onnx.load(source))]
        if form != "fp32":
            quantize_graph(source, target, form, ranges=dict.fromkeys(names, RANGE))
            source = target
        timed = Timed(open_session(ir.load(source)), layer.rows, layer.copies)
    timed.warm_up()
    for _ in range(ROUNDS):
        timed.run()
    return timed.best_us


@cache
def time_lstm(hidden: int, rows: int, form: str) -> float:
    """Microseconds of an LSTM of as many inputs as hidden units over `rows` frames."""
    return measure_lstm(hidden, rows, "int8" if form == "int8" else "fp32", ROUNDS)
