"""What every pattern does to a student, and how patterns are combined.

    channel        layers become narrower                      channel.py
    block:64       column blocks of 64 rows become zero        masks.py, layouts.py
    unstructured   single weights become zero
    2:4            n of m neighbouring weights stay
    layers         whole encoder layers go                     layers.py
    small          nothing is pruned: a new, smaller network   small.py

Channel and the zero patterns can share a model, each its own modules (`Cut.mix`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from compress.models.config import TransducerConfig
from compress.models.transducer import Transducer, outline
from compress.shrink.blocks import choose_blocks
from compress.shrink.channel import ChannelPruner, Kept
from compress.shrink.evidence import Evidence
from compress.shrink.groups import Group
from compress.shrink.layers import LayerPruner
from compress.shrink.layouts import Layout, parse_layout
from compress.shrink.masks import MaskPruner
from export.stopwatch import Precision
from streaming.errors import InputError

NAMED = ("channel", "block", "unstructured", "layers", "small")
DENSE = "dense"


class Pruner(Protocol):
    """One pattern, or several, on one student, in place."""

    num_parameters_dense: int

    @property
    def max_sparsity(self) -> float: ...

    @property
    def sparsity(self) -> float: ...

    def check(self, sparsity: float) -> None:
        """Raises InputError for what cannot be reached, naming what stops it."""

    def prune_to(self, sparsity: float, optimizer: torch.optim.Optimizer | None = None) -> Kept:
        """Remove more; the optimiser follows. Parameters whose shape changed are in the result."""

    def after_step(self) -> None:
        """Zeros stay zeros after an optimiser's step."""

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Cut:
    """What is removed where.

    pattern: of every module that `mix` gives no other; mix: part of a module's name -> pattern, the
    longest part counts. exclude: parts of names of modules that stay as they are. shares: module or
    channel group -> how much it loses relative to others (sensitivity.py). score: what stays, by
    scores.py; None is least_squares where blocks are lost, else magnitude. precision: of the
    exported layers, whose measured times choose the blocks.
    """

    pattern: str = "channel"
    mix: Mapping[str, str] = field(default_factory=dict)
    exclude: Sequence[str] = ()
    score: str | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    precision: Precision = "int8"

    @property
    def patterns(self) -> set[str]:
        return {self.pattern, *self.mix.values()}

    @property
    def importance(self) -> str:
        """The score that counts."""
        blocks = any(pattern.startswith("block") for pattern in self.patterns)
        return self.score or ("least_squares" if blocks else "magnitude")


def check_pattern(pattern: str) -> str:
    """`pattern` itself; raises InputError for one that does not exist."""
    if pattern not in NAMED and parse_layout(pattern) is None:
        raise InputError(
            f"no pattern {pattern!r}: choose one of {', '.join(NAMED)}, block:ROWS, or n:m "
            "as in 2:4"
        )
    return pattern


def matrices(model: nn.Module) -> list[str]:
    """Modules with matrices that can hold zeros: Linear, LSTM, convolutions over all channels."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.LSTM)
        or (isinstance(module, nn.Conv1d) and module.groups == 1)
    ]


def check_parts(model: nn.Module, parts: Sequence[str]) -> None:
    """Raises InputError for a part of a name that no module has."""
    names = [name for name, module in model.named_modules() if not list(module.children())]
    for part in parts:
        if not any(part in name for name in names):
            kinds = dict.fromkeys(piece for name in names for piece in name.split("."))
            known = ", ".join(piece for piece in kinds if not piece.isdigit())
            raise InputError(f"no module is called {part!r}: parts of names are {known}")


def pattern_of(name: str, cut: Cut) -> str:
    """The pattern of one module, DENSE where it stays as it is."""
    if any(part in name for part in cut.exclude):
        return DENSE
    parts = sorted((part for part in cut.mix if part in name), key=len)
    return cut.mix[parts[-1]] if parts else cut.pattern


def build_pruner(
    model: Transducer, dense: TransducerConfig, cut: Cut, evidence: Evidence | None = None
) -> Pruner:
    """The pruner of `cut` for a student whose dense form is `dense`.

    Raises InputError for patterns and modules that do not exist or cannot be combined.
    """
    for pattern in cut.patterns:
        check_pattern(pattern)
    check_parts(model, [*cut.mix, *cut.exclude])
    used = cut.patterns
    if used & {"layers", "small"}:
        if cut.mix or cut.exclude or "small" in used:
            raise InputError(f"pattern {cut.pattern} is of a whole model: give no mix, no exclude")
        return LayerPruner(model, dense)
    whole = outline(dense)
    layouts = choose_layouts(whole, cut)
    channel = build_channel(model, dense, cut, evidence) if "channel" in used else None
    count = whole.num_parameters
    score = cut.importance
    masks = MaskPruner(model, layouts, count, score, evidence, cut.shares) if layouts else None
    if channel and masks:
        return MixedPruner(model, channel, masks)
    pruner = channel or masks
    if not pruner:
        raise InputError("nothing is left to prune: exclude fewer modules")
    return pruner


def choose_layouts(dense: Transducer, cut: Cut) -> dict[str, Layout]:
    """module -> layout of its zeros, for the modules that are pruned by zeros and gain by it."""
    specs = {name: pattern_of(name, cut) for name in matrices(dense)}
    blocks = choose_blocks(dense, [name for name in specs if specs[name] == "block"], cut.precision)
    specs |= blocks.specs
    layouts = {name: parse_layout(spec) for name, spec in specs.items() if spec != DENSE}
    return {name: layout for name, layout in layouts.items() if layout}


def slow_blocks(dense: Transducer, cut: Cut) -> list[str]:
    """Modules asked for in blocks that stay dense, because no block of rows is faster."""
    asked = [name for name in matrices(dense) if pattern_of(name, cut) == "block"]
    return choose_blocks(dense, asked, cut.precision).dense


def build_channel(
    model: Transducer, dense: TransducerConfig, cut: Cut, evidence: Evidence | None
) -> ChannelPruner:
    """Channel pruning of the groups that touch only modules of this pattern."""
    modules = dict(model.named_modules())

    def allowed(group: Group) -> bool:
        names = {axis.parameter.rpartition(".")[0] for axis in group.axes}
        return all(
            pattern_of(name, cut) == "channel"
            for name in names
            if name in modules and not isinstance(modules[name], nn.LayerNorm)
        )

    return ChannelPruner(
        model, cut.importance, dense=dense, allowed=allowed, evidence=evidence, shares=cut.shares
    )


class MixedPruner:
    """Channels of some modules and zeros of others: both lose the same share of what they can."""

    def __init__(self, model: Transducer, channel: ChannelPruner, masks: MaskPruner) -> None:
        self.model = model
        self.channel = channel
        self.masks = masks
        self.num_parameters_dense = channel.num_parameters_dense
        self.channel_share = channel.max_sparsity / (channel.max_sparsity + masks.max_sparsity)

    @property
    def sparsity(self) -> float:
        return self.masks.sparsity

    @property
    def max_sparsity(self) -> float:
        return self.channel.max_sparsity + self.masks.max_sparsity

    def check(self, sparsity: float) -> None:
        self.channel.check(sparsity * self.channel_share)
        trial = deepcopy(self)
        trial.prune_to(sparsity)

    def prune_to(self, sparsity: float, optimizer: torch.optim.Optimizer | None = None) -> Kept:
        kept = self.channel.prune_to(sparsity * self.channel_share, optimizer)
        self.masks.prune_to(sparsity, optimizer)
        return kept

    def after_step(self) -> None:
        self.masks.after_step()

    def state(self) -> dict[str, Any]:
        return self.masks.state() | {"channel_share": self.channel_share}

    def load_state(self, state: dict[str, Any]) -> None:
        self.channel_share = state["channel_share"]
        self.masks.load_state(state)
