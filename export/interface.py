"""What an ONNX file promises its caller: inputs, outputs, metadata; and problems found on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

# The oldest runtime sherpa-onnx still ships is onnxruntime 1.16.3 (HarmonyOS).
MAX_IR = 9
MAX_OPSET = 19
DOMAINS = ("", "ai.onnx", "com.microsoft")
Dim = int | str


@dataclass(frozen=True)
class Tensor:
    """An input or output; a free dimension is a text."""

    name: str
    shape: tuple[Dim, ...]
    dtype: int


@dataclass
class Graph:
    """A file's interface and the problems found so far."""

    path: Path
    inputs: list[Tensor]
    outputs: list[Tensor]
    metadata: dict[str, str]
    problems: list[str]

    def require(self, right: bool, problem: str) -> bool:
        if not right:
            self.problems.append(f"{self.path}: {problem}")
        return right


def read_graph(path: Path, problems: list[str]) -> Graph | None:
    """The file's interface; None, and a problem, when it cannot be read."""
    if not path.is_file():
        problems.append(f"{path}: missing: copy or export the model again")
        return None
    try:
        model = onnx.load(path, load_external_data=False)
        if not (model.graph.input and model.graph.output):
            raise ValueError("no graph")
    except Exception:  # protobuf's own error has no public, typed name
        problems.append(f"{path}: not an ONNX file, or cut short: copy or export it again")
        return None
    graph = Graph(
        path,
        [_tensor(value) for value in model.graph.input],
        [_tensor(value) for value in model.graph.output],
        {entry.key: entry.value for entry in model.metadata_props},
        problems,
    )
    _check_file(graph, model)
    return graph


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value or d.dim_param or "?" for d in tensor.shape.dim)
    return Tensor(value.name, shape, tensor.elem_type)


def _check_file(graph: Graph, model: onnx.ModelProto) -> None:
    """IR, opset, operators, weights."""
    ir = model.ir_version
    graph.require(ir <= MAX_IR, f"IR {ir} is refused by deployed onnxruntimes: write IR 8")
    for opset in model.opset_import:
        domain = opset.domain or "ai.onnx"
        known = opset.domain in DOMAINS
        graph.require(known, f"operators of {domain} are not in onnxruntime: use standard ones")
        if opset.domain in ("", "ai.onnx"):
            new = f"opset {opset.version} is unknown to deployed onnxruntimes: write opset 17"
            graph.require(opset.version <= MAX_OPSET, new)
    for weight in model.graph.initializer:
        if weight.data_location == TensorProto.EXTERNAL:
            graph.require(False, "weights lie in another file: Android cannot load it, save in one")
            break
        if weight.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
            array = numpy_helper.to_array(weight)
            if not graph.require(
                bool(np.isfinite(array).all()), f"{weight.name} holds NaN or infinity: train again"
            ):
                break


def require_integer(graph: Graph, key: str) -> int | None:
    """A metadata value that must be an integer of 0 or more."""
    value = graph.metadata.get(key)
    fix = "export again, or add it with onnx.helper.set_model_props"
    if graph.require(value is not None, f"metadata has no {key}: {fix}"):
        right = value is not None and value.isascii() and value.isdigit()
        if graph.require(right, f"metadata {key} is {value!r}, not an integer of 0 or more: {fix}"):
            return int(value or 0)
    return None


def require_tensors(graph: Graph, side: str, wanted: int) -> bool:
    found = len(graph.inputs if side == "inputs" else graph.outputs)
    why = f"has {found} {side}, this family needs {wanted}: export for this family"
    return graph.require(found == wanted, why)


def require_shape(graph: Graph, value: Tensor, wanted: Sequence[Dim | None]) -> bool:
    """`wanted`: a number, None for the free axis of the streams, "?" for anything."""
    shape = list(value.shape)
    names = ["N" if want is None else want for want in wanted]
    if not graph.require(
        len(shape) == len(wanted), f"{value.name} is {shape}, must be {names}: export it so"
    ):
        return False
    for have, want in zip(shape, wanted, strict=True):
        if want is None and isinstance(have, int):
            fix = f"{value.name} is fixed to {have} streams: export with a free batch axis"
            return graph.require(False, fix)
        if isinstance(want, int) and isinstance(have, int) and have != want:
            fix = f"{value.name} is {shape}, metadata and tensors ask for {names}: export again"
            return graph.require(False, fix)
    return True
