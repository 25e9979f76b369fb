"""An fp32 graph becomes one whose layers are stored in the forms asked for (forms.py).

Nothing stays fp32 in silence: every weight is in the list returned, with the form it has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

import onnx
import onnx_ir as ir
from onnx import numpy_helper
from onnx_ir.passes import common

from export.errors import ExportError
from export.graph import save_graph, shorten_names
from export.quantize.forms import FORMS, WEIGHTS, plan_forms
from export.quantize.job import Job, Ranges
from export.quantize.layers import (
    LayerInfo,
    find_flat,
    list_layers,
    matrices,
    name_weights,
    storage,
)
from export.sparse_int8 import narrow_columns

# Operators whose constant operand is meant to stay fp32: elementwise, or Conv for its speed.
FP32_OPERATORS = ("Conv", "Add", "Mul", "Sub", "Div", "Where", "Max", "Min")
NOTHING: Mapping[str, str] = MappingProxyType({})
NO_RANGES: Ranges = MappingProxyType({})


def quantize_graph(
    source: Path,
    target: Path,
    default: str = "int8",
    forms: Mapping[str, str] = NOTHING,
    ranges: Ranges = NO_RANGES,
    per_channel: bool = True,
) -> list[LayerInfo]:
    """Writes `source`, an fp32 graph, as `target`; returns its layers as that file holds them.

    forms: of the layers that do not get the default one; a layer whose form cannot hold it gets
    the next that can. ranges: of what static layers read, as calibrate measures them. per_channel:
    a scale for each output row instead of each matrix: 4 % more bytes of int8, and half the error
    where the ranges of the rows differ.
    Raises ExportError for a weight that would have been skipped in silence, an unknown layer or
    form, and a static layer without a range.
    """
    proto = onnx.load(source)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    layers = list_layers(proto)
    plan = plan_forms(layers, default, forms)
    weights = name_weights(proto)
    jobs = plan_jobs(weights, plan, Job({}, ranges, per_channel, find_flat(proto)))
    model = ir.from_proto(proto)
    for name, job in jobs.items():
        model = FORMS[name].write(model, job)
    check_done(model, jobs)
    wanted = {x["name"] for x in layers if plan[x["name"]] == "fp32" and storage(x) in WEIGHTS}
    wanted |= {x["name"] for x in layers if forms.get(x["name"], default) == "fp32"}
    check_nothing_skipped(ir.to_proto(model), [w for w, x in weights.items() if x in wanted])
    narrow_columns(model.graph)
    common.RemoveUnusedNodesPass()(model)
    small = ir.from_proto(drop_zero_points(ir.to_proto(model)))
    shorten_names(small, weights=True)
    save_graph(ir.to_proto(small), target, metadata)
    return [describe(layer, plan[layer["name"]]) for layer in layers]


def describe(layer: LayerInfo, form: str) -> LayerInfo:
    return {**layer, "form": form, "bits": FORMS[form].bits}


def plan_jobs(weights: Mapping[str, str], plan: Mapping[str, str], settings: Job) -> dict[str, Job]:
    """form -> its job, of the forms that any layer gets, in the order of FORMS."""
    jobs = {}
    for form in FORMS:
        taken = {weight: layer for weight, layer in weights.items() if plan.get(layer) == form}
        if taken:
            jobs[form] = dataclasses.replace(settings, weights=taken)
    return jobs


def check_done(model: ir.Model, jobs: Mapping[str, Job]) -> None:
    """Raises ExportError for a weight that did not get its form."""
    stored = model.graph.initializers
    for form, job in jobs.items():
        for weight in job.weights:
            if f"{weight}{FORMS[form].suffix}" not in stored:
                raise ExportError(
                    f"{form} skipped {weight}: nothing multiplies by it as {form} needs it: name "
                    "another form for this layer"
                )


def check_nothing_skipped(model: onnx.ModelProto, kept: Collection[str] = ()) -> None:
    """Raises ExportError for a matrix that is fp32 in a quantised graph, but for those in `kept`
    and those of operators that have no other form."""
    known = matrices(model).keys() - {*kept}
    for node in model.graph.node:
        skipped = known & {*node.input}
        if skipped and node.op_type not in FP32_OPERATORS and not _is_scale(node):
            raise ExportError(
                f"quantising skipped {min(skipped)}, read by {node.op_type}: fold constants "
                "before, or give the layer the form fp32"
            )


def _is_scale(node: onnx.NodeProto) -> bool:
    return node.op_type in ("DequantizeLinear", "DynamicQuantizeLSTM")


def drop_zero_points(model: onnx.ModelProto) -> onnx.ModelProto:
    """Symmetric int8 weights need no zero points: a vector a layer less in the file."""
    graph = model.graph
    zeros = {i.name for i in graph.initializer if not numpy_helper.to_array(i).any()}
    for node in graph.node:
        if node.op_type == "MatMulInteger" and len(node.input) > 3 and node.input[3] in zeros:
            del node.input[3]
    used = {name for node in graph.node for name in node.input}
    for initializer in [i for i in graph.initializer if i.name not in used]:
        graph.initializer.remove(initializer)
    return model
