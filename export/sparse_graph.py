"""Finds the block layers that sparse.py wrote into a graph, to list them and to make them int8.

# Letters: P outputs, K inputs, G rows a group, k kept inputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from export.passes import constant


@dataclass(frozen=True)
class BlockLayer:
    """One use of a block layer: from `source` (..., K) to `result` (..., P), without the bias.

    weights: one (P/G, k, G), or a (k, G) for each group; all in the order of the outputs.
    """

    name: str
    source: ir.Value
    columns: ir.Value
    weights: tuple[ir.Value, ...]
    matmuls: tuple[ir.Node, ...]
    gather: ir.Node
    result: ir.Value

    @property
    def group_rows(self) -> int:
        return _shape(self.weights[0])[-1]

    @property
    def num_outputs(self) -> int:
        return sum(_size(weight) // _shape(weight)[-2] for weight in self.weights)

    @property
    def num_groups(self) -> int:
        return self.num_outputs // self.group_rows

    @property
    def left_alone(self) -> tuple[ir.Node, ...]:
        """Nodes that onnxruntime's quantiser must not touch. It may have the MatMul of one group:
        to quantise what was gathered is less work, and a finer scale."""
        one_matmul = self.num_groups == 1 and self.taps == 1
        return (self.gather,) if one_matmul else (self.gather, *self.matmuls)

    @property
    def num_nonzero(self) -> int:
        arrays = (constant(weight) for weight in self.weights)
        return sum(int((array != 0).sum()) for array in arrays if array is not None)

    @property
    def taps(self) -> int:
        """Frames of a window when the layer was a Conv1d, whose source joins them; else 1."""
        producer = self.source.producer()
        if producer is None or producer.op_type != "Concat":
            return 1
        taps = [value.producer() for value in producer.inputs if value is not None]
        is_window = all(tap is not None and tap.op_type == "Slice" for tap in taps)
        return len(taps) if is_window and len(taps) > 1 else 1

    @property
    def kind(self) -> str:
        if re.search(r"weight_(ih|hh)_l\d+$", self.name):
            return "lstm"
        return "linear" if self.taps == 1 else "convolution"

    @property
    def torch_shape(self) -> list[int]:
        """(P, K) of a Linear, (P, K, taps) of a Conv1d; K is what the Gather picks from."""
        data = self.gather.inputs[0]
        assert data is not None and data.shape is not None, "infer shapes first"
        width = data.shape[self.gather.attributes.get_int("axis", 0)]
        assert isinstance(width, int)
        tail = [width // self.taps, self.taps] if self.taps > 1 else [width]
        return [self.num_outputs, *tail]


def load_ir(model: onnx.ModelProto) -> ir.Model:
    """The model with its shapes inferred; files hold none."""
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def find_block_layers(graph: ir.Graph) -> list[BlockLayer]:
    """Every block layer in the graph's order; one that runs frame by frame comes once a frame."""
    found = {}
    for node in graph:
        gather = _gather_before(node)
        if gather is None or _after(node) in found:
            continue
        result = _after(node)
        source, columns = gather.inputs[0], gather.inputs[1]
        turned = _producer(source, "Transpose")
        source = turned.inputs[0] if turned is not None else source
        matmuls = tuple(_matmuls_of(node, result))
        weights = tuple(m.inputs[1] for m in matmuls if m.inputs[1] is not None)
        assert source is not None and columns is not None
        name = re.sub(r"(\.weight)?(\.\d+)?$", "", weights[0].name or "")
        found[result] = BlockLayer(name, source, columns, weights, matmuls, gather, result)
    return list(found.values())


def _gather_before(node: ir.Node) -> ir.Node | None:
    """The Gather of constant columns that feeds a MatMul with a constant weight.

    A Transpose stands behind it unless it picks along the last axis. One stands before it too,
    if the optimiser has not found another to cancel it.
    """
    if node.op_type != "MatMul" or constant(node.inputs[1]) is None:
        return None
    split = _producer(node.inputs[0], "Split")
    turned = _producer(split.inputs[0] if split is not None else node.inputs[0], "Transpose")
    gather = _producer(turned.inputs[0] if turned is not None else node.inputs[0], "Gather")
    columns = constant(gather.inputs[1]) if gather is not None else None
    if gather is None or columns is None or columns.ndim == 0:
        return None
    return gather if turned is not None or gather.attributes.get_int("axis", 0) == -1 else None


def _producer(value: ir.Value | None, kind: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == kind else None


def _after(node: ir.Node) -> ir.Value:
    """What follows the MatMul of a block layer: Concat, or Transpose and Reshape, or nothing."""
    value = node.outputs[0]
    if _producer(node.inputs[0], "Split") is not None:
        return value.consumers()[0].outputs[0]
    if len(_shape(node.inputs[1])) == 3:
        value = value.consumers()[0].outputs[0]
        return value.consumers()[0].outputs[0]
    return value


def _matmuls_of(node: ir.Node, result: ir.Value) -> Iterator[ir.Node]:
    joined = result.producer()
    if joined is None or joined.op_type != "Concat":
        yield node
        return
    for value in joined.inputs:
        part = _producer(value, "MatMul")
        assert part is not None
        yield part


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    array = constant(value)
    assert array is not None
    return array.shape


def _size(value: ir.Value) -> int:
    array = constant(value)
    assert array is not None
    return array.size
