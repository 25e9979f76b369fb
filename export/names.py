"""Layers have the names of torch's state dict: encoder.*, predictor.*, joiner.*; in a graph of a
bundle only the encoder's keep their prefix, and the predictor's graph is called "decoder".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from export.errors import ExportError

PREFIXES = {"encoder": "", "decoder": "predictor.", "joiner": "joiner."}  # of a graph's names
GRAPH_OF = {"encoder": "encoder", "predictor": "decoder", "joiner": "joiner"}
NETWORK_OF = {graph: network for network, graph in GRAPH_OF.items()}
Value = TypeVar("Value")


def split_by_graph(
    values: Mapping[str, Value], what: str = "block_rows"
) -> dict[str, dict[str, Value]]:
    """Paths in a transducer -> graph -> paths in its torch module.

    {"joiner.output": 8} gives {"joiner": {"output": 8}}; the encoder's module has its prefix.
    Raises ExportError for a path outside the three networks; `what` names them.
    """
    split: dict[str, dict[str, Value]] = {}
    for path, value in values.items():
        graph = GRAPH_OF.get(path.partition(".")[0])
        if graph is None:
            raise ExportError(f"{what} names {path!r}: paths begin with {', '.join(GRAPH_OF)}")
        split.setdefault(graph, {})[path.removeprefix(PREFIXES[graph])] = value
    return split
