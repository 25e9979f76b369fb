"""Where two rungs part: the inputs of the chunk as a file, and the first node of the graph.

The graph of the bundle and a fresh export of the same modules bear the same names, so all their
inner tensors can be set side by side. Both run without optimisation, on the same runtime: up to the
fault they agree nearly to the bit, and the first node that does not is where it lies.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from export.errors import ExportError
from export.names import split_by_graph
from export.targets import TARGETS
from export.torch_session import TorchSession
from export.traces import Step
from streaming.bundle import ORT_SUFFIX, BundleInfo
from streaming.session import SESSIONS

# Of a tensor's largest value. Equal weights give equal bits, constants folded elsewhere 1e-7.
NODE_TOLERANCE = 1e-5
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Divergence:
    """A node of the graph, its place in topological order, and the weights it reads."""

    index: int
    node: str
    weights: tuple[str, ...]
    error: float

    def __str__(self) -> str:
        reads = f" reading {', '.join(self.weights)}" if self.weights else ""
        return f"node {self.index}, {self.node}{reads}: largest error {self.error:.1e}"


def explain_step(
    step: Step,
    info: BundleInfo,
    whole: TorchSession | None,
    block_rows: Mapping[str, int],
    folder: Path,
) -> dict[str, Any]:
    """Of a step that failed: "evidence", the file written; "node", in words, for an exact step."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{step.one.name} {step.other.name} {len(step.course.features)}"
    path = folder / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.npz"
    arrays: dict[str, Any] = collect_evidence(step)
    np.savez(path, **arrays)
    found: dict[str, Any] = {"evidence": str(path)}
    if whole is not None and step.one.probes and step.tolerance is not None:
        precision = step.other.name.rpartition(" ")[2]
        found["node"] = find_node(step, info, precision, whole, block_rows)
    return found


def collect_evidence(step: Step) -> dict[str, Array]:
    """The first chunk that differs: its inputs, and what both rungs made of it; likewise probes."""
    index = step.row["first_divergent_chunk"] or 0
    arrays: dict[str, Array] = {"chunk": np.array(index), "x": step.course.chunk(index)}
    before = (step.one.before or step.other.before)[index : index + 1]
    for state in before:
        arrays |= {f"state{i}": part for i, part in enumerate(state)}
    for side, trace in (("from", step.one), ("to", step.other)):
        arrays |= {f"{side}_{key}": parts[index] for key, parts in trace.chunks.items()}
        arrays |= {f"{side}_{key}": part for key, part in trace.probes.items()}
        frames = [[n, t.index, t.frame] for n, ts in enumerate(trace.tokens) for t in ts]
        arrays[f"{side}_stream_token_frame"] = np.array(frames, dtype=np.int64).reshape(-1, 3)
    return arrays


def find_node(
    step: Step,
    info: BundleInfo,
    precision: str,
    whole: TorchSession,
    block_rows: Mapping[str, int],
) -> str:
    """The first node that differs from a fresh export: of the encoder on the chunk that does."""
    graph = _suspect(step)
    path = info.graph_path(graph, precision)
    if path.suffix == ORT_SUFFIX:
        return f"not looked for: {path.name} is optimised, verify the bundle it was made of"
    inputs = example_inputs(info, graph)
    if graph == "encoder":
        index = step.row["first_divergent_chunk"]
        to_graph = SESSIONS[info.target].encoder_inputs
        inputs = to_graph(step.course.chunk(index), step.other.before[index])
    with tempfile.TemporaryDirectory() as scratch:
        try:
            TARGETS[info.target](
                whole.encoder,
                whole.predictor,
                whole.joiner,
                Path(scratch),
                split_by_graph(block_rows),
            )
            found = first_divergent_node(path, Path(scratch) / f"{graph}.onnx", inputs)
        except ExportError as error:
            return f"not looked for: {error}"
    if found is None:
        return f"{path.name}: none differs from a fresh export: the export itself is at fault"
    return f"{path.name}: {found}"


def _suspect(step: Step) -> str:
    """Which graph differs, the encoder first."""
    if step.row["first_divergent_chunk"] is not None:
        return "encoder"
    assert step.tolerance is not None
    return "joiner" if step.row["errors"]["decoder_out"] <= step.tolerance else "decoder"


def example_inputs(info: BundleInfo, graph: str, num_streams: int = 4) -> list[Array]:
    """Random values for the inputs of a graph: noise, and token ids where it takes integers."""
    rng = np.random.default_rng(0)
    inputs: list[Array] = []
    for tensor in info.tensors[graph]["inputs"]:
        shape = [num_streams if size == "N" else int(size) for size in tensor["shape"]]
        ids = rng.integers(0, info.vocab_size, shape)
        floating = tensor["dtype"].startswith("float")
        inputs.append((rng.standard_normal(shape) if floating else ids).astype(tensor["dtype"]))
    return inputs


def first_divergent_node(
    one: Path, other: Path, inputs: Sequence[Array], tolerance: float = NODE_TOLERANCE
) -> Divergence | None:
    """The first node, in topological order, that gives something else in `one` than in `other`.

    Raises ExportError when the two files do not hold the same nodes.
    """
    models = onnx.load(one), onnx.load(other)
    nodes = [list(model.graph.node) for model in models]
    for index, pair in enumerate(zip(*nodes, strict=False)):
        if pair[0].SerializeToString() != pair[1].SerializeToString():
            raise ExportError(
                f"{one.name} has another structure than a fresh export, from node {index} on "
                f"({pair[0].op_type}, {pair[1].op_type}): was it exported from this model?"
            )
    if len(nodes[0]) != len(nodes[1]):
        raise ExportError(f"{one.name} has {len(nodes[0])} nodes, a fresh export {len(nodes[1])}")
    values = [run_exposed(model, inputs) for model in models]
    weights = {initializer.name for initializer in models[0].graph.initializer}
    for index, node in enumerate(nodes[0]):
        error = max(_difference(*(v[name] for v in values)) for name in node.output if name)
        if not error <= tolerance:
            read = tuple(name for name in node.input if name in weights)
            return Divergence(index, node.op_type, read, error)
    return None


def run_exposed(model: onnx.ModelProto, inputs: Sequence[Array]) -> dict[str, Array]:
    """Every tensor that a node of the graph computes, by name."""
    names = list(dict.fromkeys(n for node in model.graph.node for n in node.output if n))
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = dict(zip((value.name for value in session.get_inputs()), inputs, strict=True))
    return dict(zip(names, session.run(names, feed), strict=True))


def _difference(one: Array, other: Array) -> float:
    """Largest difference, as a share of the largest value where that is above 1."""
    if one.shape != other.shape:
        return float("inf")
    if one.size == 0:
        return 0.0
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(np.abs(one - other).max() / max(1.0, np.abs(other).max()))
