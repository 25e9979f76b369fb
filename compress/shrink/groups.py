"""Which slices of which parameters live and die together, as torch-pruning's graph has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compress.models.config import SUBSAMPLING, TransducerConfig
from compress.models.encoders.conformer import Attention
from compress.models.transducer import Transducer, outline
from compress.shrink.lstm import LstmPruner, OneOperationLstm


@dataclass(frozen=True)
class Axis:
    """Along `dim` of `parameter` lie `copies` times the group's units (4 for an LSTM's gates)."""

    parameter: str
    dim: int
    copies: int


@dataclass(frozen=True)
class Group:
    """Units coupled by the graph, named after the module that makes them.

    blocks x size units: heads x head_dim in attention, where every head keeps as many
    dimensions as the others; one block everywhere else.
    """

    name: str
    blocks: int
    size: int
    axes: tuple[Axis, ...]

    @property
    def width(self) -> int:
        return self.blocks * self.size


def run_once(model: Transducer, _: object) -> Tensor:
    """One chunk through all three networks; S frames meet S label contexts."""
    num_frames = model.encoder.chunk_frames
    features = torch.zeros(1, num_frames, model.encoder.num_mel_bins, dtype=torch.double)
    encoded, _ = model.encoder(features, torch.tensor([num_frames]))
    labels = torch.zeros(1, num_frames // SUBSAMPLING - 1, dtype=torch.long)
    return model.joiner(encoded, model.predictor.forward_sequence(labels))


def build_twin(config: TransducerConfig) -> Transducer:
    """A model on the CPU in which every weight is its own flat index, exact below 2^53."""
    twin = outline(config).to_empty(device="cpu").double()
    for parameter in twin.parameters():
        parameter.data = torch.arange(parameter.numel(), dtype=torch.double).view_as(parameter)
    return twin


def build_graph(twin: Transducer) -> Any:
    """torch-pruning's dependency graph of a twin."""
    for module in twin.modules():
        if isinstance(module, nn.LSTM):
            module.__class__ = OneOperationLstm
    with torch.enable_grad():
        return tp.DependencyGraph().build_dependency(
            twin,
            example_inputs=(),
            forward_fn=run_once,
            customized_pruners={OneOperationLstm: LstmPruner()},
            verbose=False,
        )


def remove_units(graph: Any, twin: Transducer, name: str, removed: list[int]) -> None:
    """Remove units `removed` of the group that module `name` makes, in place."""
    module = twin.get_submodule(name)
    prune = graph.get_pruner_of_module(module).prune_out_channels
    graph.get_pruning_group(module, prune, removed).prune(record_history=False)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def find_groups(config: TransducerConfig) -> list[Group]:
    """All groups but the vocabulary; each found by removing one unit and seeing what shrank."""
    twin = build_twin(config)
    graph = build_graph(twin)
    names = {module: name for name, module in twin.named_modules()}
    found = graph.get_all_groups(
        ignored_layers=[twin.joiner.output],
        root_module_types=(nn.Conv1d, nn.Linear, nn.Embedding, nn.LSTM),
    )
    groups = []
    for name, width in [(names[group[0].dep.target.module], len(group[0].idxs)) for group in found]:
        before = shapes_of(twin)
        remove_units(graph, twin, name, [0])
        axes = shrunk_axes(before, shapes_of(twin))
        attention = attention_of(twin, axes)
        blocks = attention.num_heads if attention else 1
        groups.append(Group(name, blocks, width // blocks, axes))
    return groups


def attention_of(model: nn.Module, axes: Sequence[Axis]) -> Attention | None:
    """The attention whose query makes the units along `axes`, if any does."""
    makers = [axis.parameter for axis in axes if axis.dim == 0 and ".query." in axis.parameter]
    if not makers:
        return None
    module = model.get_submodule(makers[0].rpartition(".query.")[0])
    return module if isinstance(module, Attention) else None


def shrunk_axes(
    before: Mapping[str, tuple[int, ...]], after: Mapping[str, tuple[int, ...]]
) -> tuple[Axis, ...]:
    return tuple(
        Axis(name, dim, old - new)
        for name, shape in before.items()
        for dim, (old, new) in enumerate(zip(shape, after[name], strict=True))
        if old != new
    )
