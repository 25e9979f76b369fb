"""Graph rewrites to operators whose CPU kernels are faster; each leaves the function unchanged.

    normalise_instances   LayerNormalization -> InstanceNormalization, Mul, Add
    convolve_in_2d        Conv of (N, C, T) -> Conv of (N, C, 1, T) between two Reshapes

onnxruntime 1.28, one thread, microseconds: LayerNormalization of 8 x 512 17.1, a scalar kernel;
InstanceNormalization with factor and offset 2.9 (8 x 64: 2.8 and 1.6). A depthwise Conv of 512
channels, kernel 15, 8 frames 44.9, in 2-D 6.1, because only then onnxruntime blocks the channels
for its vector kernels; the front end's first Conv 80 -> 64 6.6 and 3.5.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from export.passes import add_constant, constant, replace_node


def normalise_instances(graph: ir.Graph) -> None:
    """Over the last axis of (N, S, D): each of the S rows is an instance, as S is a constant."""
    for node in list(graph):
        if node.op_type != "LayerNormalization" or node.attributes.get_int("axis", -1) not in (
            -1,
            2,
        ):
            continue
        x, factor, offset = node.inputs[0], node.inputs[1], (*node.inputs, None)[2]
        num_rows = _rows(x)
        if num_rows is None or factor is None:
            continue
        rows = [_filled(graph, num_rows, value) for value in (1.0, 0.0)]
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        nodes = [ir.node("InstanceNormalization", [x, *rows], {"epsilon": epsilon})]
        nodes.append(ir.node("Mul", [nodes[-1].outputs[0], factor]))
        if offset is not None:
            nodes.append(ir.node("Add", [nodes[-1].outputs[0], offset]))
        replace_node(graph, node, nodes)


def _rows(x: ir.Value | None) -> int | None:
    """S of (N, S, D) when it is a number."""
    if x is None or x.shape is None or len(x.shape) != 3 or not isinstance(x.shape[1], int):
        return None
    return x.shape[1]


def _filled(graph: ir.Graph, size: int, value: float) -> ir.Value:
    name = f"filled_{size}_{value:g}"
    if name not in graph.initializers:
        add_constant(graph, name, np.full(size, value, dtype=np.float32))
    return graph.initializers[name]


def convolve_in_2d(graph: ir.Graph) -> None:
    """The weight (P, K, taps) becomes (P, K, 1, taps); pads, strides, dilations get an axis."""
    for node in list(graph):
        weight = node.inputs[1] if node.op_type == "Conv" else None
        array = constant(weight)
        if weight is None or array is None or array.ndim != 3 or len(weight.uses()) > 1:
            continue
        weight.const_value = ir.Tensor(np.ascontiguousarray(array[:, :, None]), name=weight.name)
        weight.shape = ir.Shape(array[:, :, None].shape)
        shapes = [_shape_constant(graph, last) for last in ((0, 0, 1, -1), (0, 0, -1))]
        before = ir.node("Reshape", [node.inputs[0], shapes[0]])
        convolution = ir.node(
            "Conv", [before.outputs[0], *node.inputs[1:]], _attributes_2d(node.attributes)
        )
        after = ir.node("Reshape", [convolution.outputs[0], shapes[1]])
        replace_node(graph, node, [before, convolution, after])


def _attributes_2d(attributes: Mapping[str, ir.Attr]) -> dict[str, ir.Attr]:
    found = {name: attribute for name, attribute in attributes.items() if name != "kernel_shape"}
    for name in ("strides", "dilations"):
        if name in found:
            found[name] = ir.AttrInt64s(name, [1, *found[name].as_ints()])
    if "pads" in found:
        begin, end = found["pads"].as_ints()
        found["pads"] = ir.AttrInt64s("pads", [0, begin, 0, end])
    return found


def _shape_constant(graph: ir.Graph, shape: tuple[int, ...]) -> ir.Value:
    name = f"shape_{len(shape)}d"
    if name not in graph.initializers:
        add_constant(graph, name, np.array(shape, dtype=np.int64))
    return graph.initializers[name]
