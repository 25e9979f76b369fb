"""static: int8 whose activations keep one scale for ever, in onnxruntime's QDQ form.

    x -> QuantizeLinear(s, z) -> DequantizeLinear -> MatMul <- DequantizeLinear(rows) <- int8 weight

onnxruntime computes the four as one product of integers. Activations are uint8; s and z come from
the range of the layer's input, which calibration.py measures and training may learn. Block layers
are products of integers in any case (sparse_int8.py): they only get s and z.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from export.passes import add_constant, constant, replace_node
from export.quantize.job import Job
from export.quantize.layers import find_products
from export.sparse_graph import find_block_layers
from export.sparse_int8 import quantize_blocks, quantize_input, round_weights, row_scales


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
    widened = _store_weight(graph, weight, job.per_channel)
    graph.insert_before(graph[0], widened)
    for product in products:
        x = product.inputs[0]
        assert x is not None
        quantise, scale, zero = quantize_input(graph, x, job.weights[weight], job.ranges)
        back = ir.node("DequantizeLinear", [quantise.outputs[0], scale, zero])
        after = ir.node("MatMul", [back.outputs[0], widened.outputs[0]])
        replace_node(graph, product, [quantise, back, after])


def _store_weight(graph: ir.Graph, name: str, per_channel: bool) -> ir.Node:
    """int8 weight and scales of its columns, which are the rows of the torch weight."""
    array = np.asarray(constant(graph.initializers[name]), dtype=np.float32)
    scales = row_scales(array)
    if not per_channel:
        scales = np.full_like(scales, scales.max())
    stored = add_constant(graph, f"{name}_quantized", round_weights(array, scales))
    scales = scales.reshape(-1)
    scale = add_constant(graph, f"{name}_scale", scales if per_channel else scales[0])
    return ir.node("DequantizeLinear", [stored, scale], {"axis": 1})
