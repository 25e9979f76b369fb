"""A torch module -> a small ONNX graph that every onnxruntime since 1.14 loads.

IR 8, opset 17, standard operators, axis N free, constants folded, no value_info (it breaks
onnxruntime's quantiser), no stack traces or local paths (a third of a small file).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
import torch
from onnxscript import opset18, optimizer
from torch import Tensor, nn

from export import kernels, lstm, passes, sparse
from export.errors import ExportError
from export.lower import replace_blocks

IR_VERSION = 8
OPSET = 17
TRACED_OPSET = 18  # the lowest that torch's exporter writes
op: Any = opset18  # its own types know no traced value
NOISY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def export_graph(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    stream_axes: Sequence[int],
    metadata: Mapping[str, str | int],
    path: Path,
    block_rows: Mapping[str, int] | None = None,
) -> None:
    """Writes `module` as ONNX; `inputs` are example tensors, stream_axes where each holds N.

    block_rows: layers to write in their block form, path -> rows a group (sparse.py).
    Give examples of two or more streams: torch takes an axis of 1 for a constant.
    """
    module = lstm.replace_lstms(replace_blocks(module, block_rows or {}))
    model = _trace(module, inputs, outputs, stream_axes)
    simplify(model, {*module.state_dict()})
    shorten_names(model)
    save_graph(lower_opset(ir.to_proto(model)), path, metadata)


def _trace(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], axes: Sequence[int]
) -> ir.Model:
    free = torch.export.Dim("N")
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            tuple(tensor.clone() for tensor in inputs.values()),  # one tensor twice is one input
            dynamo=True,
            opset_version=TRACED_OPSET,
            dynamic_shapes=tuple({axis: free} for axis in axes),
            input_names=list(inputs),
            output_names=list(outputs),
            custom_translation_table=TRANSLATIONS,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return program.model


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(q k^T scale + mask) v, without torch's guard against rows that see nothing:
    it costs two nodes a layer and hides a mistake of the encoder."""
    if is_causal or enable_gqa or dropout_p:
        raise ExportError("attention with is_causal, enable_gqa or dropout: give it a mask instead")
    scale = float(query.shape[-1]) ** -0.5 if scale is None else scale
    scores = op.MatMul(
        op.Mul(query, op.Constant(value_float=scale)), op.Transpose(key, perm=[0, 1, 3, 2])
    )
    if attn_mask is not None:
        if attn_mask.dtype == ir.DataType.BOOL:
            low = float(torch.finfo(torch.float32).min)
            attn_mask = op.Where(
                attn_mask, op.Constant(value_float=0.0), op.Constant(value_float=low)
            )
        scores = op.Add(scores, attn_mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


TRANSLATIONS: dict[Any, Any] = {
    torch.ops.aten.scaled_dot_product_attention.default: _attention,
    **lstm.TRANSLATIONS,
    **sparse.TRANSLATIONS,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter logs absent torchvision and warns about its own internals."""
    levels = {name: logging.getLogger(name).level for name in NOISY}
    try:
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`isinstance\\(treespec", FutureWarning)
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def simplify(model: ir.Model, parameters: Collection[str]) -> None:
    """Folds constants, then the rewrites of passes.py and kernels.py: only work on inputs is left.

    `parameters`: names of the torch module's weights, which the folded weights then bear.
    """
    graph = model.graph
    common.LiftConstantsToInitializersPass()(model)
    origins = passes.weight_origins(graph, parameters)
    limit = 1 << 40
    optimizer.optimize(model, input_size_limit=limit, output_size_limit=limit)
    common.LiftConstantsToInitializersPass()(model)
    passes.split_gemm(graph)
    passes.fold_scales(graph)
    passes.sink_slices(graph)
    passes.raise_axes(graph)
    kernels.normalise_instances(graph)
    kernels.convolve_in_2d(graph)
    for tidy in (
        common.CommonSubexpressionEliminationPass(),
        common.IdentityEliminationPass(),
        common.DeduplicateInitializersPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
        common.TopologicalSortPass(),
    ):
        tidy(model)
    passes.name_weights(graph, origins)


def shorten_names(model: ir.Model, weights: bool = False) -> None:
    """Gives inner tensors names of one to three letters; weights keep theirs unless asked.

    Names are a tenth of a small int8 file. Inputs and outputs keep theirs.
    """
    graph = model.graph
    kept = {value.name for value in (*graph.inputs, *graph.outputs)}
    if not weights:
        kept |= set(graph.initializers)
    fresh = (name for name in _short_names() if name not in kept)
    for value in list(graph.initializers.values()):
        if value.name not in kept:
            value.name = next(fresh)
    for node in graph:
        node.name = ""
        for value in node.outputs:
            if value.name and value.name not in kept:
                value.name = next(fresh)


def _short_names() -> Iterator[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    previous = [""]
    while True:
        previous = [head + letter for head in previous for letter in letters]
        yield from previous


def lower_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Relabels opset 18 as 17 after checking that every node means the same in both."""
    for node in model.graph.node:
        _drop_num_outputs(node)
        schemas = [onnx.defs.get_schema(node.op_type, v) for v in (OPSET, TRACED_OPSET)]
        if schemas[0].since_version == schemas[1].since_version:
            continue
        known = schemas[0].attributes
        if len(node.input) > schemas[0].max_input or any(
            a.name not in known for a in node.attribute
        ):
            raise ExportError(
                f"{node.op_type} as torch writes it needs opset {TRACED_OPSET}, devices read "
                f"{OPSET}: use another operation in the model"
            )
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = OPSET
    return model


def _drop_num_outputs(node: onnx.NodeProto) -> None:
    """Opset 17 reads the number of equal parts of a Split from its outputs."""
    for attribute in [a for a in node.attribute if a.name == "num_outputs"]:
        if node.op_type == "Split":
            node.attribute.remove(attribute)


def save_graph(
    model: onnx.ModelProto, path: Path, metadata: Mapping[str, str | int] | None = None
) -> None:
    """Checks and writes `model`, stripped; `metadata` replaces what it held, None keeps it."""
    model.ir_version = IR_VERSION
    model.producer_name = model.producer_version = model.doc_string = model.domain = ""
    graph = model.graph
    graph.name = "g"
    graph.doc_string = ""
    del graph.value_info[:]
    for node in graph.node:
        node.name = node.doc_string = ""
        del node.metadata_props[:]
    for info in (*graph.input, *graph.output):
        info.doc_string = ""
        del info.metadata_props[:]
    if metadata is not None:
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
