"""int8: by onnxruntime's quantiser, and of block layers by our own (sparse_int8.py).

Activations get one scale a call, measured as it runs, so no calibration data is needed; results
then depend a little on chunk and batch size. An LSTM becomes DynamicQuantizeLSTM; an embedding is
widened where it is looked up.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir
from onnxruntime.quantization import QuantType, quantize_dynamic

from export.quantize.job import Job
from export.quantize.known_range import fix_known_ranges
from export.sparse_graph import find_block_layers
from export.sparse_int8 import quantize_blocks

QUANTISED = ("MatMul", "LSTM", "Gather")


def write_int8(model: ir.Model, job: Job) -> ir.Model:
    blocks = find_block_layers(model.graph)
    alone = {value.name or "" for b in blocks for node in b.left_alone for value in node.outputs}
    model = _quantize_with_onnxruntime(ir.to_proto(model), job, alone)
    others = {w.name or "" for b in blocks for w in b.weights} - job.weights.keys()
    quantize_blocks(model, job.per_channel, others)
    fix_known_ranges(model.graph)
    return model


def _quantize_with_onnxruntime(model: onnx.ModelProto, job: Job, alone: set[str]) -> ir.Model:
    """Takes every node that reads a weight of the job, but for those that give out `alone`."""
    for number, node in enumerate(model.graph.node):
        node.name = str(number)
    wanted = (n for n in model.graph.node if job.weights.keys() & {*n.input})
    taken = {node.name for node in wanted if not alone & {*node.output}}
    # Else onnxruntime logs an advice that export_graph made needless.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            file,
            op_types_to_quantize=list(QUANTISED),
            per_channel=job.per_channel,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[n.name for n in model.graph.node if n.name not in taken],
        )
        return ir.from_proto(onnx.load(file))
