"""The matrices of an exported graph: what each is, which initialisers hold it, what feeds it.

A layer is named as in torch's state dict without ".weight". A block layer (sparse.py) is one layer,
however many initialisers hold its groups.
"""

from __future__ import annotations

import math
import re
from typing import TypedDict

import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper

from export.passes import constant
from export.sparse_graph import BlockLayer, find_block_layers, load_ir

KINDS = {"MatMul": "linear", "LSTM": "lstm", "Gather": "embedding", "Conv": "convolution"}


class _Layer(TypedDict):
    name: str
    kind: str
    shape: list[int]
    sparsity: float
    bits: int
    form: str


class LayerInfo(_Layer, total=False):
    """A layer's weight: shape as in torch, sparsity = share of zeros, bits and form (forms.py) as
    the file holds it.

    block_rows: only where the file holds blocks of that many rows without their zeros (sparse.py).
    """

    block_rows: int


def list_layers(model: onnx.ModelProto) -> list[LayerInfo]:
    """Every matrix of an fp32 graph of export_graph, in the graph's order."""
    weights = matrices(model)
    graph = load_ir(model).graph
    blocks = {w.name: b for b in find_block_layers(graph) for w in b.weights}
    layers: dict[str, LayerInfo] = {}
    for node in model.graph.node:
        for name in (name for name in node.input if name in weights):
            if name in blocks:
                layer = _describe_block(blocks[name])
            else:
                layer = _describe(node, weights[name])
            layers.setdefault(layer["name"], layer)
    return list(layers.values())


def _describe(node: onnx.NodeProto, weight: onnx.TensorProto) -> LayerInfo:
    array = numpy_helper.to_array(weight)
    shape = array.T.shape if node.op_type == "MatMul" else array.shape
    if node.op_type == "Conv" and len(shape) == 4:  # kernels.convolve_in_2d
        shape = (*shape[:2], shape[3])
    return LayerInfo(
        name=weight.name.removesuffix(".weight"),
        kind=KINDS.get(node.op_type, node.op_type.lower()),
        shape=list(shape[1:] if node.op_type == "LSTM" else shape),
        sparsity=round(float((array == 0).mean()), 4),
        bits=32,
        form="fp32",
    )


def _describe_block(block: BlockLayer) -> LayerInfo:
    shape = block.torch_shape
    return LayerInfo(
        name=block.name,
        kind=block.kind,
        shape=shape,
        sparsity=round(1 - block.num_nonzero / math.prod(shape), 4),
        bits=32,
        form="fp32",
        block_rows=block.group_rows,
    )


def matrices(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """float32 constants that are wider than 1 along two axes."""
    return {
        i.name: i
        for i in model.graph.initializer
        if i.data_type == TensorProto.FLOAT and sum(dim > 1 for dim in i.dims) > 1
    }


def name_weights(model: onnx.ModelProto) -> dict[str, str]:
    """matrix -> the layer it belongs to."""
    blocks = find_block_layers(ir.from_proto(model).graph)
    names = {name: name.removesuffix(".weight") for name in matrices(model)}
    return names | {w.name or "": block.name for block in blocks for w in block.weights}


def storage(layer: LayerInfo) -> str:
    """What a form must be able to hold: the layer's kind, or "blocks" for several of them.

    Blocks of one group are a MatMul like any other, behind a Gather.
    """
    if "block_rows" not in layer or layer["kind"] == "convolution":
        return layer["kind"]
    return "linear" if layer["block_rows"] == layer["shape"][0] else "blocks"


def node_key(layer: LayerInfo) -> str:
    """Equal for weights that one node reads, which have one form: the two of an LSTM."""
    if storage(layer) == "lstm":
        return re.sub(r"weight_(ih|hh)", "weight", layer["name"])
    return layer["name"]


def find_products(graph: ir.Graph) -> dict[str, list[ir.Node]]:
    """matrix -> the MatMuls that multiply by it, those of several blocks left out."""
    blocks = find_block_layers(graph)
    inside = {node for b in blocks if len(b.left_alone) > 1 for node in b.matmuls}
    found: dict[str, list[ir.Node]] = {}
    for node in graph:
        array = constant(node.inputs[1]) if node.op_type == "MatMul" else None
        if array is not None and array.ndim == 2 and node not in inside:
            assert node.inputs[1] is not None
            found.setdefault(node.inputs[1].name or "", []).append(node)
    return found


def find_flat(model: onnx.ModelProto) -> set[str]:
    """The matrices that multiply inputs of two axes, (N, K), and no others."""
    products = find_products(load_ir(model).graph)
    shapes = {w: [n.inputs[0].shape for n in nodes if n.inputs[0]] for w, nodes in products.items()}
    return {w for w, found in shapes.items() if all(s is not None and len(s) == 2 for s in found)}


def find_inputs(graph: ir.Graph) -> dict[str, list[ir.Value]]:
    """layer -> the tensors it multiplies, one for each time that it is used."""
    blocks = find_block_layers(graph)
    names = {w.name: b.name for b in blocks for w in b.weights}
    inputs: dict[str, list[ir.Value]] = {}
    for block in (b for b in blocks if len(b.left_alone) > 1):
        inputs.setdefault(block.name, []).append(block.source)
    for weight, nodes in find_products(graph).items():
        layer = names.get(weight, weight.removesuffix(".weight"))
        inputs.setdefault(layer, []).extend(n.inputs[0] for n in nodes if n.inputs[0] is not None)
    return inputs
