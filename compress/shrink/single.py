"""The teacher with one layer pruned: a module that holds zeros, or a group of channels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

import torch

from compress.data.batches import Batch
from compress.distill.view import view_batch
from compress.models.transducer import Transducer
from compress.shrink.arrange import arrange_rows_
from compress.shrink.budget import widths_at
from compress.shrink.channel import ChannelPruner
from compress.shrink.evidence import Evidence
from compress.shrink.groups import Group
from compress.shrink.layouts import Layout
from compress.shrink.masks import cut_weight, matrix_shape, weight_names
from compress.shrink.pruner import Cut, build_channel, choose_layouts
from compress.shrink.shares import Names
from streaming.errors import InputError


class Single(Protocol):
    """A layer that can be pruned alone."""

    @property
    def name(self) -> str: ...

    @property
    def pattern(self) -> str: ...

    def nearest(self, share: float) -> float:
        """What can go of it: `share`, or the step before."""

    def prune(self, share: float) -> Transducer:
        """A copy of the teacher without that share of this layer."""


@dataclass(frozen=True)
class Zeros:
    """A module, how its zeros lie, and what is known of its inputs."""

    teacher: Transducer
    name: str
    layout: Layout
    evidence: Evidence | None = None

    @property
    def pattern(self) -> str:
        return self.layout.spec

    @property
    def size(self) -> int:
        names = weight_names(self.teacher, self.name)
        return sum(self.teacher.get_parameter(name).numel() for name in names)

    def kept(self, share: float) -> dict[str, int]:
        """weight -> values that stay."""
        result = {}
        for name in weight_names(self.teacher, self.name):
            shape = matrix_shape(self.teacher.get_parameter(name))
            fewest, step = self.layout.steps(shape)
            steps = math.ceil(((1 - share) * math.prod(shape) - fewest) / step)
            result[name] = min(math.prod(shape), fewest + max(0, steps) * step)
        return result

    def nearest(self, share: float) -> float:
        return 1 - sum(self.kept(share).values()) / self.size

    def prune(self, share: float) -> Transducer:
        student = deepcopy(self.teacher).requires_grad_(False)
        for name, kept in self.kept(share).items():
            weight = student.get_parameter(name)
            score = self.evidence.score if self.evidence else "magnitude"
            cut = cut_weight(name, weight, weight, self.layout, kept, score, self.evidence)
            weight.copy_(torch.where(*cut, 0.0))
        return student


@dataclass(frozen=True)
class Channels:
    """A group of channels. The pruner found the groups once and takes a new model every time."""

    teacher: Transducer
    pruner: ChannelPruner
    group: Group
    pattern: str = "channel"

    @property
    def name(self) -> str:
        return self.group.name

    def width(self, share: float) -> tuple[int, int]:
        ladders = {self.name: self.pruner.ladder_of(self.group, 1)}
        return widths_at(1 - share, [self.group], ladders)[self.name]

    def nearest(self, share: float) -> float:
        return 1 - math.prod(self.width(share)) / self.group.width

    def prune(self, share: float) -> Transducer:
        dense = {group.name: (group.blocks, group.size) for group in self.pruner.groups}
        widths = dense | {self.name: self.width(share)}
        student = self.pruner.model = deepcopy(self.teacher).requires_grad_(False)
        self.pruner.prune_widths(widths)
        self.pruner.model = self.teacher
        return student


def list_singles(teacher: Transducer, cut: Cut, batches: Sequence[Batch] = ()) -> list[Single]:
    """Every layer that `cut` prunes; batches are heard for scores that want inputs.

    Raises InputError for patterns that take layers whole.
    """
    patterns = cut.patterns
    if patterns & {"layers", "small"}:
        raise InputError(
            f"pattern {cut.pattern} has no layers that lose a share: leave allocation uniform"
        )
    layouts = choose_layouts(teacher, cut)
    teacher = deepcopy(teacher).requires_grad_(False)
    arrange_rows_(teacher, layouts)
    evidence = hear_inputs(teacher, batches) if cut.importance == "least_squares" else None
    zeros = [Zeros(teacher, name, layout, evidence) for name, layout in layouts.items()]
    singles: list[Single] = [*zeros]
    if "channel" in patterns:
        pruner = build_channel(teacher, teacher.config, cut, None)
        singles += [Channels(teacher, pruner, group) for group in pruner.groups]
    return singles


@torch.no_grad()
def hear_inputs(model: Transducer, batches: Sequence[Batch]) -> Evidence:
    """What least squares needs, from the model as it is."""
    evidence, training = Evidence(model, "least_squares"), model.training
    model.train()
    for batch in batches:
        _ = view_batch(model, batch).moves  # the joiner's inputs too
    model.train(training)
    evidence.close()
    return evidence


def count_terms(teacher: Transducer, singles: Sequence[Single]) -> dict[Names, int]:
    """Parameters as a polynomial in the shares that layers keep; () is what nobody prunes."""
    terms: Counter[Names] = Counter()
    pruner = next((single.pruner for single in singles if isinstance(single, Channels)), None)
    if pruner:
        widths = {group.name: group.width for group in pruner.groups}
        for names, coefficient in pruner.count.terms.items():
            terms[names] += coefficient * math.prod(widths[name] for name in names)
    else:
        terms[()] = teacher.num_parameters
    for single in singles:
        if isinstance(single, Zeros):
            terms[single.name,] = single.size
            terms[()] -= single.size
    return dict(terms)
