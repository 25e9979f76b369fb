"""One layer as a graph of its own, timed: what the latency table is made of.

# Letters: K inputs, P outputs, S rows of a call, G rows a group, k kept inputs.

A graph holds several copies of the layer with weights and inputs of their own, so that they come
from where a model's come from and not from the nearest cache. Sessions take turns, and of each the
fastest round counts, in time of the processor: the one that other work disturbed least.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

from export.graph import IR_VERSION, OPSET
from export.passes import add_constant
from export.sparse import SPLIT_FROM
from export.sparse_int8 import narrow_columns, quantize_blocks

Precision = Literal["fp32", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
Key = TypeVar("Key")

COPIES = (4, 16)
COPIES_BYTES = 16 << 20  # of the dense fp32 weights of all copies, where the bounds allow
ROUND_SECONDS = 0.001


@dataclass(frozen=True)
class Layer:
    """group_rows None is a dense layer, group_rows P one of columns that all rows share."""

    inputs: int
    outputs: int
    rows: int
    precision: Precision = "fp32"
    group_rows: int | None = None
    num_kept: int = 0

    @property
    def copies(self) -> int:
        return int(np.clip(COPIES_BYTES // (4 * self.inputs * self.outputs), *COPIES))


def measure_layer(layer: Layer, rounds: int = 5) -> float:
    """Microseconds of one call on one thread."""
    return measure_layers({"": layer}, rounds)[""]


def measure_layers(layers: Mapping[Key, Layer], rounds: int = 5) -> dict[Key, float]:
    """As `measure_layer`, of several in turns: their ratios mean more than their times."""
    sessions: dict[Layer, onnxruntime.InferenceSession] = {}
    timed = {}
    for key, layer in layers.items():
        kind = replace(layer, rows=1)  # a session takes any number of rows
        if kind not in sessions:
            sessions[kind] = open_session(build_layer(layer))
        timed[key] = Timed(sessions[kind], layer.rows, layer.copies)
    for one in timed.values():
        one.warm_up()
    for _ in range(rounds):
        for one in timed.values():
            one.run()
    return {key: one.best_us for key, one in timed.items()}


def open_session(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)


class Timed:
    """A session with inputs of `rows` bound; `best_us` is the time of a call divided by `share`."""

    def __init__(self, session: onnxruntime.InferenceSession, rows: int, share: int) -> None:
        self.session = session
        self.binding = session.io_binding()
        rng = np.random.default_rng(0)
        for value in session.get_inputs():
            shape = [rows if isinstance(size, str) else size for size in value.shape]
            array = rng.standard_normal(shape, dtype=np.float32)
            self.binding.bind_cpu_input(value.name, array)
        for value in session.get_outputs():
            self.binding.bind_output(value.name)
        self.share = share
        self.calls = 1
        self.best_us = np.inf

    def warm_up(self) -> None:
        """Finds how many calls fill a round."""
        self.session.run_with_iobinding(self.binding)
        start = time.thread_time()
        self.session.run_with_iobinding(self.binding)
        self.calls = max(1, round(ROUND_SECONDS / (time.thread_time() - start)))

    def run(self) -> None:
        start = time.thread_time()
        for _ in range(self.calls):
            self.session.run_with_iobinding(self.binding)
        seconds = (time.thread_time() - start) / self.calls
        self.best_us = min(self.best_us, 1e6 * seconds / self.share)


def build_layer(layer: Layer) -> ir.Model:
    """The copies of a layer, with bias, in the form that export_graph and the quantiser give it.

    Any number of rows: one graph serves all.
    """
    inputs = [make_input(f"x{i}", (1, "S", layer.inputs)) for i in range(layer.copies)]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": OPSET}, name="g")
    model = ir.Model(graph, ir_version=IR_VERSION)
    rng = np.random.default_rng(0)
    build = _dense if layer.group_rows is None else _block
    for number, x in enumerate(inputs):
        product = build(graph, layer, x, number, rng)
        bias = add_constant(graph, f"bias{number}", np.zeros(layer.outputs, dtype=np.float32))
        y = append_node(graph, "Add", [product, bias])
        y.shape, y.type = ir.Shape((1, "S", layer.outputs)), x.type
        graph.outputs.append(y)
    if layer.precision == "int8":
        quantize_blocks(model, per_channel=True)
        narrow_columns(model.graph)
    return model


def _dense(
    graph: ir.Graph, layer: Layer, x: ir.Value, number: int, rng: np.random.Generator
) -> ir.Value:
    return _matmul(graph, layer, x, (layer.inputs, layer.outputs), f"w{number}", rng)


def _matmul(
    graph: ir.Graph,
    layer: Layer,
    x: ir.Value,
    shape: tuple[int, ...],
    name: str,
    rng: np.random.Generator,
) -> ir.Value:
    """In int8 as onnxruntime's quantiser writes it."""
    if layer.precision == "fp32":
        weight = add_constant(graph, name, rng.standard_normal(shape, dtype=np.float32))
        return append_node(graph, "MatMul", [x, weight])
    weight = add_constant(graph, name, rng.integers(-127, 128, shape, dtype=np.int8))
    scales = add_constant(graph, f"{name}_scale", np.full(shape[-1], 0.01, dtype=np.float32))
    quantise = ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
    graph.append(quantise)
    data, scale, zero = quantise.outputs
    total = append_node(graph, "MatMulInteger", [data, weight, zero])
    total = append_node(graph, "Cast", [total], to=ir.DataType.FLOAT)
    return append_node(graph, "Mul", [total, append_node(graph, "Mul", [scale, scales])])


def _block(
    graph: ir.Graph, layer: Layer, x: ir.Value, number: int, rng: np.random.Generator
) -> ir.Value:
    """The forms of sparse.py. Several groups are fp32 here: quantize_blocks comes after."""
    assert layer.group_rows is not None
    num_groups = layer.outputs // layer.group_rows
    everything = np.arange(layer.inputs)
    picked = [np.sort(rng.permutation(everything)[: layer.num_kept]) for _ in range(num_groups)]
    columns = np.stack(picked).astype(np.int32)
    name = f"w{number}"
    if num_groups == 1:
        index = add_constant(graph, f"{name}_columns", columns[0])
        kept = append_node(graph, "Gather", [x, index], axis=-1)
        return _matmul(graph, layer, kept, (layer.num_kept, layer.outputs), name, rng)
    turned = append_node(graph, "Transpose", [x], perm=[0, 2, 1])
    shape = (num_groups, layer.num_kept, layer.group_rows)
    weight: npt.NDArray[np.float32] = rng.standard_normal(shape, dtype=np.float32)
    if layer.num_kept * layer.group_rows >= SPLIT_FROM:
        return _split(graph, turned, columns, weight, name)
    index = add_constant(graph, f"{name}_columns", columns)
    kept = append_node(graph, "Gather", [turned, index], axis=1)
    kept = append_node(graph, "Transpose", [kept], perm=[0, 1, 3, 2])
    product = append_node(graph, "MatMul", [kept, add_constant(graph, name, weight)])
    product = append_node(graph, "Transpose", [product], perm=[0, 2, 1, 3])
    target = add_constant(graph, f"{name}_shape", np.array([0, 0, layer.outputs]))
    return append_node(graph, "Reshape", [product, target])


def _split(
    graph: ir.Graph,
    turned: ir.Value,
    columns: npt.NDArray[np.int32],
    weight: npt.NDArray[np.float32],
    name: str,
) -> ir.Value:
    index = add_constant(graph, f"{name}_columns", columns.reshape(-1))
    kept = append_node(graph, "Gather", [turned, index], axis=1)
    kept = append_node(graph, "Transpose", [kept], perm=[0, 2, 1])
    split = ir.node("Split", [kept], {"axis": -1}, num_outputs=len(weight))
    graph.append(split)
    products = [
        append_node(graph, "MatMul", [part, add_constant(graph, f"{name}.{number}", one)])
        for number, (part, one) in enumerate(zip(split.outputs, weight, strict=True))
    ]
    return append_node(graph, "Concat", products, axis=-1)


def append_node(
    graph: ir.Graph, kind: str, inputs: list[ir.Value], **attributes: object
) -> ir.Value:
    node = ir.node(kind, inputs, attributes)  # type: ignore[arg-type]
    graph.append(node)
    return node.outputs[0]


def make_input(name: str, shape: tuple[int | str, ...]) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
