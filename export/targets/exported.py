"""What a target leaves behind: three files, and what bundle.json says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from export.graph import export_graph

FILES = {"encoder": "encoder.onnx", "decoder": "decoder.onnx", "joiner": "joiner.onnx"}


@dataclass(frozen=True)
class Exported:
    """What the graphs were built with, as bundle.json needs it."""

    chunk_frames: int
    subsampling: int
    context_size: int
    vocab_size: int
    state_sizes: tuple[int, int]
    blank_id: int = 0
    max_symbols_per_frame: int = 1


@dataclass(frozen=True)
class Interface:
    """A graph's example inputs by name, its outputs, the axis of the streams of each input."""

    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    stream_axes: Sequence[int]
    metadata: Mapping[str, str | int] = field(default_factory=dict)


def export_graphs(
    modules: Mapping[str, nn.Module],
    interfaces: Mapping[str, Interface],
    folder: Path,
    block_rows: Mapping[str, Mapping[str, int]],
) -> None:
    """Writes FILES; block_rows: graph -> layer -> rows a group."""
    folder.mkdir(parents=True, exist_ok=True)
    for graph, file in FILES.items():
        one = interfaces[graph]
        export_graph(
            modules[graph],
            one.inputs,
            one.outputs,
            one.stream_axes,
            one.metadata,
            folder / file,
            block_rows.get(graph),
        )
