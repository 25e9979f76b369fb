"""Dynamic int8 by onnxruntime: constant MatMul weights, LSTM weights and embeddings.

Activations get one scale a call, measured as it runs, so no calibration data is needed; results
then depend a little on chunk and batch size. Convolutions compute in fp32, because ConvInteger is
0.07 to 1.2 times as fast as Conv on a CPU; their weights are stored as float16.
Nothing stays fp32 in silence: every weight is in the list returned.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from export.errors import ExportError
from export.graph import save_graph, shorten_names
from export.sparse_graph import BlockLayer, find_block_layers, load_ir
from export.sparse_int8 import quantize_blocks

KINDS = {"MatMul": "linear", "LSTM": "lstm", "Gather": "embedding", "Conv": "convolution"}
QUANTISED = ("MatMul", "LSTM", "Gather")
# Operators whose constant operand is meant to stay fp32: elementwise, or Conv for its speed.
FP32_OPERATORS = ("Conv", "Add", "Mul", "Sub", "Div", "Where", "Max", "Min")


class _Layer(TypedDict):
    name: str
    kind: str
    shape: list[int]
    sparsity: float
    bits: int


class LayerInfo(_Layer, total=False):
    """A layer's weight: shape as in torch, sparsity = share of zeros, bits as the file holds it.

    block_rows: only where the file holds blocks of that many rows without their zeros (sparse.py).
    """

    block_rows: int


def list_layers(model: onnx.ModelProto, bits: Mapping[str, int] | None = None) -> list[LayerInfo]:
    """Every matrix of an fp32 graph of export_graph, in the graph's order.

    `bits`: of the weights that another file holds in fewer than 32, by name.
    """
    weights = _matrices(model)
    blocks = {w.name: b for b in find_block_layers(load_ir(model).graph) for w in b.weights}
    layers = {}
    for node in model.graph.node:
        for name in (name for name in node.input if name in weights):
            if name in blocks:
                layers[blocks[name].name] = describe_block(blocks[name], bits or {})
                continue
            array = numpy_helper.to_array(weights[name])
            shape = array.T.shape if node.op_type == "MatMul" else array.shape
            if node.op_type == "Conv" and len(shape) == 4:  # kernels.convolve_in_2d
                shape = (*shape[:2], shape[3])
            layers[name] = LayerInfo(
                name=name.removesuffix(".weight"),
                kind=KINDS.get(node.op_type, node.op_type.lower()),
                shape=list(shape[1:] if node.op_type == "LSTM" else shape),
                sparsity=round(float((array == 0).mean()), 4),
                bits=(bits or {}).get(name, 32),
            )
    return list(layers.values())


def describe_block(block: BlockLayer, bits: Mapping[str, int]) -> LayerInfo:
    shape = block.torch_shape
    return LayerInfo(
        name=block.name,
        kind=block.kind,
        shape=shape,
        sparsity=round(1 - block.num_nonzero / math.prod(shape), 4),
        bits=bits.get(block.weights[0].name or "", 32),
        block_rows=block.group_rows,
    )


def quantize_dynamic_int8(
    source: Path, target: Path, per_channel: bool = True, keep_fp32: Collection[str] = ()
) -> list[LayerInfo]:
    """Writes `target`, the int8 form of `source`; returns all its layers with their bits.

    per_channel: a scale for each column instead of each matrix: 4 % more bytes, and half the
    error where the ranges of the columns differ. keep_fp32: names of layers to leave alone.
    Raises ExportError for a weight that onnxruntime would have skipped in silence.
    """
    model = onnx.load(source)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    named = _name_nodes(model)
    blocks = find_block_layers(load_ir(model).graph)
    kept = {n.name for n in named if _weights_of(n, model) & _weight_names(keep_fp32)}
    kept |= {node.name or "" for block in blocks for node in block.left_alone}
    quantize_dynamic(
        _preprocessed(model),
        target,
        op_types_to_quantize=list(QUANTISED),
        per_channel=per_channel,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=sorted(kept),
    )
    whole = {w.name or "" for b in blocks if b.name in keep_fp32 for w in b.weights}
    half = {w.name or "" for b in blocks if b.taps > 1 for w in b.weights} - whole
    graph = ir.from_proto(onnx.load(target))
    target.unlink()
    quantize_blocks(graph, per_channel, whole | half)
    quantised = ir.to_proto(graph)
    check_nothing_skipped(quantised, {*keep_fp32, *whole, *half})
    names = [i.name for i in quantised.graph.initializer]
    bits = {n.removesuffix("_quantized"): 8 for n in names if n.endswith("_quantized")}
    half |= convolution_weights(quantised) - _weight_names(keep_fp32)
    store_half(quantised, half)
    bits |= dict.fromkeys(half, 16)
    drop_zero_points(quantised)
    small = ir.from_proto(quantised)
    shorten_names(small, weights=True)
    save_graph(ir.to_proto(small), target, metadata)
    return list_layers(model, bits)


def _matrices(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """float32 constants that are wider than 1 along two axes."""
    return {
        i.name: i
        for i in model.graph.initializer
        if i.data_type == TensorProto.FLOAT and sum(dim > 1 for dim in i.dims) > 1
    }


def _preprocessed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Marked as preprocessed: onnxruntime else logs an advice that export_graph made needless."""
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    return model


def _name_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    for number, node in enumerate(model.graph.node):
        node.name = str(number)
    return list(model.graph.node)


def _weight_names(layers: Collection[str]) -> set[str]:
    return {*layers, *(f"{name}.weight" for name in layers)}


def _weights_of(node: onnx.NodeProto, model: onnx.ModelProto) -> set[str]:
    return {*node.input} & {i.name for i in model.graph.initializer}


def check_nothing_skipped(model: onnx.ModelProto, keep_fp32: Collection[str] = ()) -> None:
    """Raises ExportError if a matrix is fp32 in a quantised graph without being meant to be."""
    kept = _weight_names(keep_fp32)
    matrices = _matrices(model).keys() - kept
    for node in model.graph.node:
        skipped = matrices & {*node.input}
        if skipped and node.op_type not in FP32_OPERATORS and not _is_scale(node):
            raise ExportError(
                f"int8 skipped {min(skipped)}, read by {node.op_type}: fold constants before "
                "quantising, or name the layer in keep_fp32"
            )


def convolution_weights(model: onnx.ModelProto) -> set[str]:
    used = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    return used & _matrices(model).keys()


def store_half(model: onnx.ModelProto, names: Collection[str]) -> None:
    """Weights as float16 and a Cast, which onnxruntime folds on loading: half the bytes, the same
    time.

    Not int8: in the front end that raised the error of the encoding by 20 to 57 % (three random
    Conformers), more than the 1/10 of the file it saves is worth.
    """
    weights = _matrices(model)
    for number, name in enumerate(sorted(names)):
        array = numpy_helper.to_array(weights[name]).astype(np.float16)
        model.graph.initializer.remove(weights[name])
        model.graph.initializer.append(numpy_helper.from_array(array, f"{name}_half"))
        cast = onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT)
        model.graph.node.insert(number, cast)


def _is_scale(node: onnx.NodeProto) -> bool:
    return node.op_type in ("DequantizeLinear", "DynamicQuantizeLSTM")


def drop_zero_points(model: onnx.ModelProto) -> None:
    """Symmetric int8 weights need no zero points: a vector a layer less in the file."""
    graph = model.graph
    zeros = {i.name for i in graph.initializer if not numpy_helper.to_array(i).any()}
    for node in graph.node:
        if node.op_type == "MatMulInteger" and len(node.input) > 3 and node.input[3] in zeros:
            del node.input[3]
    used = {name for node in graph.node for name in node.input}
    for initializer in [i for i in graph.initializer if i.name not in used]:
        graph.initializer.remove(initializer)
