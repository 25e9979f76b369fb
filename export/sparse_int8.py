"""int8 for block layers of several groups, of each of which onnxruntime's quantiser would make a
layer of its own that quantises its input again.

    x -> DynamicQuantizeLinear -> the layer's own Transpose, Gather, Split ... on bytes,
         MatMulInteger in place of MatMul -> Cast -> Mul(scale of x * scales of the rows)

Where the range of x is known before, QuantizeLinear stands in the place of the first.

One scale for x, as in a dense layer, and one for each output row. Those come right behind a batched
product, where onnxruntime fuses all of it (an encoder of width 512 in 0.96 of the time); separate
products are joined before (layers of 512x2048, G = 512, one row: in 0.8 of the time).
Columns are stored as int16 and widened on loading: 5 % of such a layer's bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from export.errors import ExportError
from export.passes import add_constant, constant
from export.sparse_graph import BlockLayer, find_block_layers

LARGEST = 127  # symmetric: -128 is not used
STEPS = 255  # of an activation
INT16 = 2**15
Floats = npt.NDArray[np.float32]


def quantize_blocks(
    model: ir.Model,
    per_channel: bool,
    kept: Collection[str] = (),
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> set[str]:
    """Makes the block layers of `model` int8, but for weights in `kept`; returns their weights.

    ranges: of the input of each, by name, if it is known; else every call finds its own.
    """
    graph = model.graph
    done: set[str] = set()
    blocks = [b for b in find_block_layers(graph) if not {w.name for w in b.weights} & {*kept}]
    stored: dict[ir.Value, ir.Value] = {}
    for block in blocks:
        scales = _store_weights(graph, block, per_channel, stored)
        if ranges is None:
            quantised = _quantize_in_every_call(block.source)
        else:
            quantised = quantize_input(graph, block.source, block.name, ranges)
        _insert(graph, block, scales, stored, quantised)
        done |= {weight.name or "" for weight in block.weights}
    # Layers that share an input quantise it once.
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    return done


def round_weights(weight: Floats, scales: Floats) -> npt.NDArray[np.int8]:
    rounded: Floats = np.rint(weight / scales)
    return rounded.clip(-LARGEST, LARGEST).astype(np.int8)


def row_scales(weight: Floats) -> Floats:
    """(..., k, G) -> (..., 1, G): the largest weight of a row is 127; 1 for a row of zeros."""
    largest = np.abs(weight).max(axis=-2, keepdims=True) / np.float32(LARGEST)
    return np.where(largest > 0, largest, 1).astype(np.float32)


def _store_weights(
    graph: ir.Graph, block: BlockLayer, per_channel: bool, stored: dict[ir.Value, ir.Value]
) -> ir.Value:
    """Adds int8 forms of the weights to `stored`; returns the scales, (P/G, 1, G), (P,) or ()."""
    arrays = [np.asarray(constant(weight), dtype=np.float32) for weight in block.weights]
    scales = [row_scales(array) for array in arrays]
    if not per_channel:
        largest = np.max([scale.max() for scale in scales])
        scales = [np.full_like(scale, largest) for scale in scales]
    for weight, array, scale in zip(block.weights, arrays, scales, strict=True):
        if weight not in stored:
            name = f"{weight.name}_quantized"
            stored[weight] = add_constant(graph, name, round_weights(array, scale))
    first = block.weights[0]
    name = f"{first.name}_scale"
    if name not in graph.initializers:
        joined = np.concatenate([scale.reshape(-1) for scale in scales])
        joined = scales[0] if len(scales) == 1 else joined
        add_constant(graph, name, joined if per_channel else joined.reshape(-1)[0])
    return graph.initializers[name]


def _quantize_in_every_call(x: ir.Value) -> tuple[ir.Node, ir.Value, ir.Value]:
    node = ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
    return node, node.outputs[1], node.outputs[2]


def quantize_input(
    graph: ir.Graph, x: ir.Value | None, layer: str, ranges: Mapping[str, tuple[float, float]]
) -> tuple[ir.Node, ir.Value, ir.Value]:
    """The QuantizeLinear of a layer's input `x`, not yet in the graph, its scale and zero point.

    Raises ExportError for a layer whose range is not known.
    """
    if layer not in ranges:
        raise ExportError(f"static needs the range of what {layer} reads: calibrate with speech")
    # Named by their values: layers that share an input and its range then quantise it once.
    scale, zero = (_share_constant(graph, value) for value in input_scale(*ranges[layer]))
    return ir.node("QuantizeLinear", [x, scale, zero]), scale, zero


def _share_constant(graph: ir.Graph, value: npt.NDArray[np.generic]) -> ir.Value:
    name = f"{value.dtype} {value.item()!r}"
    known = graph.initializers.get(name)
    return add_constant(graph, name, value) if known is None else known


def input_scale(low: float, high: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Scale and zero point that bring low .. high, and 0 exactly, into 0 .. 255.

    (-1, 4.1) gives 0.02 and 50. Raises ExportError for what is no range.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ExportError(f"{low} to {high} is no range: calibrate with finite features")
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / STEPS) or np.float32(1)
    return np.array(scale, np.float32), np.array(np.rint(-low / scale), np.uint8)


def _insert(
    graph: ir.Graph,
    block: BlockLayer,
    scales: ir.Value,
    stored: dict[ir.Value, ir.Value],
    quantised: tuple[ir.Node, ir.Value, ir.Value],
) -> None:
    quantise, scale, zero = quantised
    data = quantise.outputs[0]
    nodes = [quantise]
    copies: dict[ir.Value, ir.Value] = {block.source: data}

    def copy(value: ir.Value) -> ir.Value:
        """`value` computed from integers: its producer with its inputs exchanged."""
        node = value.producer()
        if value in copies or node is None:
            return copies.get(value, value)
        inputs = [copy(v) if v is not None and constant(v) is None else v for v in node.inputs]
        kind = node.op_type
        if kind == "MatMul":
            assert node.inputs[1] is not None
            kind, inputs = "MatMulInteger", [inputs[0], stored[node.inputs[1]], zero]
        new = ir.node(kind, inputs, node.attributes, num_outputs=len(node.outputs))
        nodes.append(new)
        copies.update(zip(node.outputs, new.outputs, strict=True))
        return copies[value]

    old = block.result if len(block.matmuls) > 1 else block.matmuls[0].outputs[0]
    last = old.producer()
    assert last is not None
    total = copy(old)
    nodes.append(ir.node("Cast", [total], {"to": ir.DataType.FLOAT}))
    nodes.append(ir.node("Mul", [scale, scales]))
    nodes.append(ir.node("Mul", [nodes[-2].outputs[0], nodes[-1].outputs[0]]))
    new = nodes[-1].outputs[0]
    ir.convenience.replace_nodes_and_values(graph, last, [last], nodes, [old], [new])


def narrow_columns(graph: ir.Graph) -> None:
    """Stores what Gathers pick from activations as int16 and a Cast, folded on loading."""
    gathers = [node for node in graph if node.op_type == "Gather"]
    picked = [node.inputs[1] for node in gathers if constant(node.inputs[0]) is None]
    for columns in dict.fromkeys(picked):
        array = constant(columns)
        if columns is None or array is None or array.ndim == 0 or array.max(initial=0) >= INT16:
            continue
        short = add_constant(graph, f"{columns.name}_short", array.astype(np.int16))
        cast = ir.node("Cast", [short], {"to": ir.DataType.from_numpy(array.dtype)})
        graph.insert_before(graph[0], cast)
        columns.replace_all_uses_with(cast.outputs[0])
