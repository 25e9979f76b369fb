"""static: int8 whose activations keep one scale for ever, in onnxruntime's QDQ form.

    x -> QuantizeLinear(s, z) -> DequantizeLinear -> MatMul <- DequantizeLinear(rows) <- int8 weight

onnxruntime computes the four as one product of integers. Activations are uint8; s and z come from
the range of the layer's input, which calibration.py measures and training may learn. For an input
(N, K) a Gemm with an int32 bias stands there: onnxruntime makes one of MatMul and Add in any case,
and computes it in fp32 where the bias is fp32 or the weight has no zero points. Block layers are
products of integers already (sparse_int8.py): they get s and z.

Convolutions stay out of it: with QLinearConv the built-in teacher's encoder took 0.98 of the time
and had an error of 0.013 of its size, as much as int8 of all other layers gives (0.011).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from export.passes import add_constant, constant, replace_node
from export.quantize.job import Job
from export.quantize.layers import find_products
from export.sparse_graph import find_block_layers
from export.sparse_int8 import quantize_blocks, quantize_input, round_weights, row_scales

LARGEST_BIAS = 2**30  # of an int32, in steps of input times weight
Floats = npt.NDArray[np.float32]


def write_static(model: ir.Model, job: Job) -> ir.Model:
    """Raises ExportError for a layer without a range."""
    graph = model.graph
    others = {w.name or "" for b in find_block_layers(graph) for w in b.weights}
    others -= job.weights.keys()
    for weight, products in find_products(graph).items():
        if weight in job.weights:
            _write_products(graph, weight, products, job)
    quantize_blocks(model, job.per_channel, others, job.ranges)
    common.RemoveUnusedNodesPass()(model)
    return model


def _write_products(graph: ir.Graph, weight: str, products: list[ir.Node], job: Job) -> None:
    """Gives the MatMuls by one weight integers on both sides."""
    layer = job.weights[weight]
    inputs = [quantize_input(graph, p.inputs[0], layer, job.ranges) for p in products]
    adds = [find_bias(product) if weight in job.flat else None for product in products]
    step = np.asarray(constant(inputs[0][1]), dtype=np.float32)
    biases = [np.abs(bias).max() for _, bias in filter(None, adds)]
    smallest = np.float32(max(biases, default=0.0) / (float(step) * LARGEST_BIAS))
    widened, scales = _store_weight(graph, weight, job.per_channel, bool(biases), smallest)
    for product, (quantise, *point), add in zip(products, inputs, adds, strict=True):
        back = ir.node("DequantizeLinear", [quantise.outputs[0], *point])
        factors = [back.outputs[0], widened.outputs[0]]
        if add is None:
            replace_node(graph, product, [quantise, back, ir.node("MatMul", factors)])
            continue
        name = f"{weight}_bias.{len(graph.initializers)}"
        bias = _store_bias(graph, name, add[1], step * scales)
        gemm = ir.node("Gemm", [*factors, bias.outputs[0]])
        replace_node(graph, add[0], [quantise, back, bias, gemm])
        graph.remove(product, safe=True)


def find_bias(product: ir.Node) -> tuple[ir.Node, Floats] | None:
    """The Add of one constant for each output that alone takes the product, and the constant."""
    uses = tuple(product.outputs[0].uses())
    add = uses[0].node if len(uses) == 1 else None
    if add is None or add.op_type != "Add" or product.outputs[0].is_graph_output():
        return None
    bias = constant(add.inputs[1 - uses[0].idx])
    weight = constant(product.inputs[1])
    if bias is None or weight is None or bias.shape != weight.shape[1:]:
        return None
    return add, np.asarray(bias, dtype=np.float32)


def _store_weight(
    graph: ir.Graph, name: str, per_channel: bool, biased: bool, smallest: np.float32
) -> tuple[ir.Node, Floats]:
    """The int8 weight, widened, and the scales of its columns, the rows of the torch weight."""
    array = np.asarray(constant(graph.initializers[name]), dtype=np.float32)
    scales: Floats = np.maximum(row_scales(array)[0], smallest)
    if biased:  # all that a row of zeros has is its bias
        scales = np.where(array.any(axis=0), scales, max(smallest, np.float32(1e-30)))
    if not per_channel:
        scales = np.full_like(scales, scales.max())
    stored = add_constant(graph, f"{name}_quantized", round_weights(array, scales))
    scale = add_constant(graph, f"{name}_scale", scales if per_channel else scales[0])
    inputs = [stored, scale]
    if biased:
        inputs.append(
            add_constant(
                graph, f"{name}_zeros", np.zeros(scales.shape if per_channel else (), np.int8)
            )
        )
    widened = ir.node("DequantizeLinear", inputs, {"axis": 1})
    graph.insert_before(graph[0], widened)
    return widened, scales


def _store_bias(graph: ir.Graph, name: str, bias: Floats, scales: Floats) -> ir.Node:
    stored = add_constant(graph, name, np.rint(bias / scales).astype(np.int32))
    scale = add_constant(graph, f"{name}_scale", scales.astype(np.float32))
    return ir.node("DequantizeLinear", [stored, scale], {"axis": 0})
