"""Channel pruning: layers become narrower, and the model stays an ordinary dense one.

The graph that says which slices belong together is torch-pruning's (groups.py), the widths come
from a budget of parameters (budget.py), the units that stay have the largest scores (scores.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.models.config import TransducerConfig
from compress.models.transducer import Transducer
from compress.shrink.budget import ENOUGH, ParameterCount, Width, Widths, choose_widths, ladder
from compress.shrink.evidence import Evidence
from compress.shrink.groups import (
    Group,
    attention_of,
    build_graph,
    build_twin,
    find_groups,
    remove_units,
)
from compress.shrink.heads import align_heads, query_scales
from compress.shrink.schedule import check_sparsity
from compress.shrink.scores import SCORES, best, score_units
from compress.shrink.widths import read_config
from streaming.errors import InputError

Kept = dict[str, Tensor]  # parameter name -> flat indices into the old one, in the new one's shape


class ChannelPruner:
    """Narrows `model` in place, step by step along a schedule.

    round_to: widths are multiples of it, so that kernels run full, and head dimensions multiples
        of half of it; halved where a small model could not use 97 % of its budget otherwise.
    min_width, min_head_dim: no layer gets narrower; attention drops whole heads from there, down
        to one.
    dense: the layout before any pruning, when `model` was pruned already (a resumed run).
    allowed: which groups may get narrower; all by default.
    evidence: what `score` needs to know of the steps since the last pruning; whoever prunes clears
        it afterwards.
    shares: group -> how much of its width it loses relative to others, 1 by default.

    Parameters stay the same objects, so an optimiser keeps pointing at them; its moments follow.
    Gradients are dropped: call `prune_to` after `optimizer.step()`.
    """

    def __init__(
        self,
        model: Transducer,
        score: str = "magnitude",
        *,
        round_to: int = 8,
        min_width: int = 16,
        min_head_dim: int = 12,
        dense: TransducerConfig | None = None,
        allowed: Callable[[Group], bool] = lambda group: True,
        evidence: Evidence | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        if score not in SCORES:
            raise InputError(f"no score named {score!r}: choose one of {', '.join(SCORES)}")
        self.model = model
        self.score = score
        self.evidence = evidence
        self.shares = dict(shares or {})
        self.round_to = round_to
        self.min_width = min_width
        self.min_head_dim = min_head_dim
        self.groups = [group for group in find_groups(dense or model.config) if allowed(group)]
        if not self.groups:
            raise InputError("no channels are left to prune: exclude fewer modules")
        self.count = ParameterCount(build_twin(dense or model.config), self.groups)
        self.num_parameters_dense = self.count({g.name: (g.blocks, g.size) for g in self.groups})

    @property
    def max_sparsity(self) -> float:
        """The largest sparsity that a layout reaches, every layer at its smallest."""
        smallest = {group.name: self.ladder_of(group, 1)[0] for group in self.groups}
        return 1 - self.count(smallest) / self.num_parameters_dense

    @property
    def sparsity(self) -> float:
        return 1 - self.model.num_parameters / self.num_parameters_dense

    def check(self, sparsity: float) -> None:
        """Raises InputError for a sparsity that no layout reaches."""
        self.plan(sparsity)

    def plan(self, sparsity: float) -> Widths:
        """The widths that `prune_to` would leave; nothing is changed."""
        budget = int((1 - check_sparsity(sparsity)) * self.num_parameters_dense)
        if sparsity > self.max_sparsity:
            raise InputError(
                f"no layout reaches sparsity {sparsity:g}: with every layer at its smallest "
                f"(width {self.min_width}, one head of {self.min_head_dim}) it is "
                f"{math.floor(self.max_sparsity * 1e4) / 1e4:g}: use at most that"
            )
        reachable = min(budget, self.model.num_parameters)
        round_to = self.round_to
        while True:
            ladders = {group.name: self.ladder_of(group, round_to) for group in self.groups}
            widths = choose_widths(self.groups, ladders, self.count, budget, self.shares)
            if round_to == 1 or self.count(widths) >= ENOUGH * reachable:
                return widths
            round_to = max(1, round_to // 2)

    def prune_to(self, sparsity: float, optimizer: torch.optim.Optimizer | None = None) -> Kept:
        """Remove units until num_parameters <= (1 - sparsity) * the dense model's.

        Returns for every parameter the flat indices of its values in the old one, shaped like the
        new one. Values move as they are, but for queries, which keep the softmax's scale when
        heads get narrower. Does nothing to a model that is small enough already. Raises
        InputError for a sparsity outside [0, 1) or beyond `max_sparsity`.
        """
        kept = self.prune_widths(self.plan(sparsity))
        if optimizer:
            carry_optimizer_state(optimizer, self.model, kept)
        return kept

    def after_step(self) -> None:
        """Nothing: what is gone cannot come back."""

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """The layout is in the model's configuration."""

    @torch.no_grad()
    def prune_widths(self, widths: Widths) -> Kept:
        """As `prune_to`, to a width for every group by name; nothing may get wider."""
        parameters = dict(self.model.named_parameters())
        evidence = self.score, self.evidence
        twin = build_twin(self.model.config)
        graph = build_graph(twin)
        for group in self.groups:
            old, new = self._width(group), widths[group.name]
            if old == new:
                continue
            attention = attention_of(twin, group.axes)
            if attention is None:
                scores = score_units(parameters, group.axes, math.prod(old), *evidence)
            else:
                scores = align_heads(attention, parameters, group.axes, *evidence)
                attention.num_heads, attention.head_dim = new
            remove_units(graph, twin, group.name, removed_units(scores, old, new))
        twin.config = read_config(twin)
        return take_shape(self.model, twin)

    def _width(self, group: Group) -> Width:
        attention = attention_of(self.model, group.axes)
        if attention is not None:
            return attention.num_heads, attention.head_dim
        axis = group.axes[0]
        return 1, self.model.get_parameter(axis.parameter).shape[axis.dim] // axis.copies

    def ladder_of(self, group: Group, round_to: int) -> list[Width]:
        """The widths that the group can have from now on, ascending."""
        if attention_of(self.model, group.axes) is None:
            return ladder(self._width(group), self.min_width, round_to)
        return ladder(self._width(group), self.min_head_dim, max(1, round_to // 2))


def removed_units(scores: Tensor, old: Width, new: Width) -> list[int]:
    """The units to remove so that `old` becomes `new`: whole blocks, then the rest of each block.

    >>> removed_units(torch.tensor([5.0, 1.0, 2.0, 2.0, 9.0, 4.0]), old=(3, 2), new=(2, 1))
    [1, 2, 3, 5]
    """
    by_block = scores.reshape(old)
    units = torch.arange(scores.numel()).reshape(old)
    kept: set[int] = set()
    for block in best(by_block.sum(1), new[0]).tolist():
        kept.update(units[block][best(by_block[block], new[1])].tolist())
    return sorted(set(range(scores.numel())) - kept)


def take_shape(model: Transducer, twin: Transducer) -> Kept:
    """Give `model` the widths of `twin`, whose weights say which old values they are."""
    kept = {name: index.detach().long() for name, index in twin.named_parameters()}
    scales = query_scales(model, twin)
    for name, parameter in model.named_parameters():
        values = parameter.data.flatten()[kept[name].to(parameter.device)]
        parameter.grad = None
        # A loss still alive holds an accumulator for gradients of the old shape; autograd forgets
        # it when the type changes, so take one that no weight has in between.
        parameter.data = torch.empty(0, dtype=torch.cfloat, device=parameter.device)
        parameter.data = values * scales.get(name, 1.0)
    for name, narrow in twin.named_modules():
        module = model.get_submodule(name)
        widths = {key: value for key, value in vars(narrow).items() if not key.startswith("_")}
        vars(module).update(widths, training=module.training)
        if isinstance(module, nn.LSTM):
            module.flatten_parameters()
    return kept


def carry_optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, kept: Mapping[str, Tensor]
) -> None:
    """Gather every tensor of one value per weight (moments, averages) as `prune_to` gathered.

    A moment [[1, 2], [3, 4]] of a weight that kept its last column, [[1], [3]], is [[2], [4]].
    """
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and value.dim() > 0:
                state[key] = value.flatten()[kept[name].to(value.device)]
