"""Every layer in every form that can hold it: what the form does to the model, its time, its bytes.

nats    KL of the whole model's output when this layer alone has the form (probe.py)
us      microseconds of a chunk of speech, all calls of the layer together (timing.py)
bytes   in the file, by the difference between two files: scales and columns count
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.quantize.calibration import open_graph
from export.quantize.forms import FORMS, find_form
from export.quantize.graph import quantize_graph
from export.quantize.job import Ranges
from export.quantize.layers import LayerInfo, list_layers, node_key, storage
from export.quantize.probe import Probe
from export.quantize.timing import Times
from streaming.bundle import GRAPHS, BundleInfo
from streaming.session import SESSIONS, Array, Session


@dataclass(frozen=True)
class Choice:
    """Weights that must share a form, because one node reads them: a layer, or the two of an LSTM.

    layers: their names in `graph`. forms: those that can hold them, fp32 last.
    """

    graph: str
    layers: tuple[str, ...]
    storage: str
    forms: tuple[str, ...]
    values: int


@dataclass(frozen=True)
class Candidate:
    """A choice in one of its forms."""

    choice: Choice
    form: str
    nats: float
    us: float
    bytes: int


def list_choices(info: BundleInfo) -> list[Choice]:
    """Of the three fp32 graphs of a bundle, in their order."""
    choices = []
    for graph in GRAPHS:
        nodes: dict[str, list[LayerInfo]] = {}
        for layer in list_layers(onnx.load(info.graph_path(graph, "fp32"))):
            nodes.setdefault(node_key(layer), []).append(layer)
        choices += [describe_choice(graph, layers) for layers in nodes.values()]
    return choices


def describe_choice(graph: str, layers: Sequence[LayerInfo]) -> Choice:
    first = layers[0]
    return Choice(
        graph=graph,
        layers=tuple(layer["name"] for layer in layers),
        storage=storage(first),
        forms=tuple(form for form in FORMS if find_form(first, form) == form),
        values=sum(math.prod(layer["shape"]) for layer in layers),
    )


class Measurements:
    """Measures candidates of a bundle's fp32 graphs; ranges: graph -> what calibrate() found."""

    def __init__(self, info: BundleInfo, probe: Probe, ranges: Mapping[str, Ranges]) -> None:
        self._info, self._probe, self._ranges = info, probe, ranges
        self._times = Times(info, probe.calls_a_chunk)
        self._plain = {graph: self._write(graph, {})[0] for graph in GRAPHS}

    def measure(self, choice: Choice) -> list[Candidate]:
        """One for each of its forms."""
        return [self._measure(choice, form) for form in choice.forms]

    def _measure(self, choice: Choice, form: str) -> Candidate:
        us = self._times.measure(choice.graph, choice.layers, form)
        if form == "fp32":
            return Candidate(choice, form, 0.0, us, 4 * choice.values)
        size, model = self._write(choice.graph, dict.fromkeys(choice.layers, form))
        nats = self._probe.divergence(choice.graph, self._open(model, form))
        return Candidate(
            choice, form, nats, us, 4 * choice.values - self._plain[choice.graph] + size
        )

    def _write(self, graph: str, forms: Mapping[str, str]) -> tuple[int, onnx.ModelProto]:
        """The graph with these layers in a form, the others in fp32, and the bytes of its file."""
        source = self._info.graph_path(graph, "fp32")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "one.onnx"
            quantize_graph(source, file, "fp32", forms, self._ranges.get(graph, {}))
            return file.stat().st_size, onnx.load(file)

    def _open(self, model: onnx.ModelProto, precision: str) -> Session:
        """A session all of whose calls go to one graph: those of the others are not to be made."""
        opened = open_graph(model)
        names = [value.name for value in opened.get_inputs()]

        def run(graph: str, inputs: Sequence[Array]) -> list[Array]:
            outputs: list[Array] = opened.run(None, dict(zip(names, inputs, strict=True)))
            return outputs

        return SESSIONS[self._info.target](self._info, run, precision)
