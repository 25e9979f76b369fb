"""What an ONNX or .ort file promises its caller: tensors, metadata; and problems found on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.ort_file import read_ort
from export.weights import find_bad_weight
from streaming.bundle import ORT_SUFFIX

# The oldest runtime sherpa-onnx still ships is onnxruntime 1.16.3 (HarmonyOS).
MAX_IR = 9
MAX_OPSET = 19
MAX_BYTES = 2 << 30
MAX_LINE = 400
MAX_DIGITS = 18
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
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
        if not right:  # names and metadata are other people's: one line, of bounded length
            self.problems.append(f"{self.path}: {' '.join(problem.split())[:MAX_LINE]}")
        return right


def read_graph(path: Path, problems: list[str]) -> Graph | None:
    """The file's interface; None, and a problem, when it cannot be read."""
    if not path.is_file():
        problems.append(f"{path}: missing: copy or export the model again")
        return None
    if path.stat().st_size > MAX_BYTES:
        problems.append(f"{path}: larger than 2 GiB, which no protobuf is: copy or export it again")
        return None
    try:
        is_ort = path.suffix == ORT_SUFFIX
        model = read_ort(path) if is_ort else onnx.load(path, load_external_data=False)
        if not (model.graph.input and model.graph.output):
            raise ValueError("no graph")
    except Exception:  # the readers of both formats have no errors with public, typed names
        kind = "an .ort" if path.suffix == ORT_SUFFIX else "an ONNX"
        problems.append(f"{path}: not {kind} file, or cut short: copy or export it again")
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
    for domain in sorted(used_domains(model.graph) - {*DOMAINS}):
        graph.require(False, f"operators of {domain} are not in onnxruntime: use standard ones")
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            new = f"opset {opset.version} is unknown to deployed onnxruntimes: write opset 17"
            graph.require(opset.version <= MAX_OPSET, new)
    problem = find_bad_weight(model, graph.path.parent)
    graph.require(not problem, problem)


def used_domains(graph: onnx.GraphProto) -> set[str]:
    """Domains of the operators that are there; files often declare more."""
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return {node.domain for node in graph.node}.union(*map(used_domains, inner))


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


def require_integer(graph: Graph, key: str) -> int | None:
    """A metadata value that must be an integer of 0 or more."""
    value = graph.metadata.get(key)
    fix = "export again, or add it with onnx.helper.set_model_props"
    if graph.require(value is not None, f"metadata has no {key}: {fix}"):
        right = value is not None and is_number(value)
        if graph.require(right, f"metadata {key} is {value!r}, not an integer of 0 or more: {fix}"):
            return int(value or 0)
    return None


def require_integers(graph: Graph, key: str) -> list[int] | None:
    """A metadata value that must be integers of 0 or more, parted by commas."""
    texts = [text.strip() for text in graph.metadata.get(key, "").split(",")]
    fix = f"metadata {key} must be integers parted by commas: export again"
    right = all(map(is_number, texts))
    return [int(text) for text in texts] if graph.require(right, fix) else None


def require_type(graph: Graph, value: Tensor, dtype: int) -> bool:
    name = onnx.TensorProto.DataType.Name(dtype).lower().replace("float", "float32")
    return graph.require(value.dtype == dtype, f"{value.name} must be {name}: export it so")


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
            fix = "sherpa-onnx dies of another number at once, export with a free batch axis"
            return graph.require(False, f"{value.name} is fixed to {have} streams: {fix}")
        if isinstance(want, int) and isinstance(have, int) and have != want:
            fix = f"{value.name} is {shape}, metadata and tensors ask for {names}: export again"
            return graph.require(False, fix)
    return True
