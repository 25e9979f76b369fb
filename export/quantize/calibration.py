"""The range of what every layer reads while real speech runs through the fp32 graphs of a bundle.

Chunk by chunk with the states that the chunk before left; predictor and joiner see the labels and
frames that greedy search brings to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from export.errors import ExportError
from export.quantize.job import Ranges
from export.quantize.layers import find_inputs
from streaming.bundle import GRAPHS, TOKENS_FILE, BundleInfo
from streaming.features import SILENCE, FloatArray
from streaming.search import GreedySearch, silent_tokens
from streaming.session import SESSIONS, Array, Graphs, Session
from streaming.tokens import read_tokens


def calibrate(info: BundleInfo, utterances: Sequence[FloatArray]) -> dict[str, Ranges]:
    """graph -> layer -> smallest and largest input, over features (T, F) of utterances.

    Raises ExportError for no utterance, another number of mel bins, or values that are not finite.
    """
    check_features(info, utterances)
    observers = {graph: Observer(info.graph_path(graph, "fp32")) for graph in GRAPHS}
    graphs = Graphs(info, "fp32", num_threads=1)

    def run(graph: str, inputs: Sequence[Array]) -> list[Array]:
        observers[graph].see(inputs)
        return graphs(graph, inputs)

    listen(SESSIONS[info.target](info, run, "fp32"), utterances)
    return {graph: observer.ranges for graph, observer in observers.items()}


def listen(session: Session, utterances: Sequence[FloatArray]) -> None:
    """Each utterance (T, F) from empty states through the encoder, chunk by chunk, and through
    greedy search: what the graphs are given there is what they are given on a device."""
    info = session.info
    assert info.folder is not None
    symbols = read_tokens(info.folder / TOKENS_FILE, info.vocab_size, info.blank_id)
    greedy = GreedySearch(session, silent_tokens(info, symbols), info.max_symbols_per_frame)
    for utterance in utterances:
        state, search = session.initial_state(), greedy.start()
        for chunk in cut_chunks(utterance, info.chunk_frames, info.tail_frames):
            encoded, state = session.encode(chunk[None], state)
            _, (search,) = greedy.advance(encoded, [search])


def cut_chunks(utterance: FloatArray, size: int, tail: int) -> list[FloatArray]:
    """(T, F) -> chunks (size, F), with at least `tail` frames of silence at the end, as a stream
    ends."""
    num_chunks = -(-(len(utterance) + tail) // size)
    padding = ((0, num_chunks * size - len(utterance)), (0, 0))
    padded = np.pad(utterance.astype(np.float32), padding, constant_values=SILENCE)
    return np.split(padded, num_chunks)


def check_features(info: BundleInfo, utterances: Sequence[FloatArray]) -> None:
    width = info.features.num_mel_bins
    for number, features in enumerate(utterances):
        where = f"calibration utterance {number}"
        if features.ndim != 2 or features.shape[1] != width:
            shape = tuple(features.shape)
            raise ExportError(f"{where} has shape {shape}: give features (T, {width})")
        if not np.isfinite(features).all():
            raise ExportError(f"{where} has values that are not finite: leave it out")
    if not sum(map(len, utterances)):
        raise ExportError("static needs to hear speech first: give a few dozen utterances, or int8")


class Observer:
    """A graph that gives out what its layers read; `ranges` grow with every call."""

    def __init__(self, path: Path) -> None:
        model = onnx.load(path)
        inputs = find_inputs(ir.from_proto(model).graph)
        self.ranges: dict[str, tuple[float, float]] = {}
        self._layers = {layer: {v.name or "" for v in values} for layer, values in inputs.items()}
        self._inputs = [value.name for value in model.graph.input]
        self._seen = sorted({n for names in self._layers.values() for n in names} - {*self._inputs})
        del model.graph.output[:]
        for name in self._seen:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        self._session = open_graph(model) if self._seen else None

    def see(self, inputs: Sequence[Array]) -> None:
        feed = dict(zip(self._inputs, inputs, strict=True))
        found = self._session.run(self._seen, feed) if self._session else []
        tensors = feed | dict(zip(self._seen, found, strict=True))
        ends = {name: (float(t.min()), float(t.max())) for name, t in tensors.items() if t.size}
        for layer, names in self._layers.items():
            pairs = [ends[name] for name in names]
            if layer in self.ranges:
                pairs.append(self.ranges[layer])
            self.ranges[layer] = min(low for low, _ in pairs), max(high for _, high in pairs)


def open_graph(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    content = model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
