"""Which widths spend a budget of parameters: one ratio for all groups, then fill what is left.

A width is (blocks, size): (heads, head_dim) in attention, (1, units) everywhere else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import nn

from compress.shrink.groups import Group, shapes_of

Width = tuple[int, int]
Widths = Mapping[str, Width]
Shares = Mapping[str, float]
ALIKE: Shares = {}

ENOUGH = 0.97  # share of the budget to use before a finer rounding is not worth its kernels
BISECTIONS = 24  # the ratio to 6e-8, far below one unit of any layer
ROUNDING = 1e-6


class ParameterCount:
    """num_parameters is a polynomial in the groups' widths: sum of c * w_i * w_j."""

    def __init__(self, model: nn.Module, groups: Sequence[Group]) -> None:
        owner = {(a.parameter, a.dim): (g.name, a.copies) for g in groups for a in g.axes}
        self.terms: Counter[tuple[str, ...]] = Counter()
        for name, shape in shapes_of(model).items():
            coefficient, factors = 1, []
            for dim, length in enumerate(shape):
                group, copies = owner.get((name, dim), (None, length))
                coefficient *= copies
                factors += [group] if group else []
            self.terms[tuple(sorted(factors))] += coefficient

    def __call__(self, widths: Widths) -> int:
        return sum(
            coefficient * math.prod(math.prod(widths[group]) for group in factors)
            for factors, coefficient in self.terms.items()
        )


def ladder(current: Width, smallest: int, round_to: int) -> list[Width]:
    """Ascending widths down from `current`: smaller blocks first, fewer once they are smallest.

    >>> ladder((3, 32), smallest=16, round_to=8)
    [(1, 16), (2, 16), (3, 16), (3, 24), (3, 32)]
    """
    blocks, size = current
    smallest = min(smallest, size)
    sizes = [step for step in range(round_to, size, round_to) if step > smallest]
    shrunk = [(blocks, step) for step in sizes]
    fewer = [(count, smallest) for count in range(1, blocks + 1) if (count, smallest) != current]
    return [*fewer, *shrunk, current]


def widths_at(
    ratio: float,
    groups: Sequence[Group],
    ladders: Mapping[str, list[Width]],
    shares: Shares = ALIKE,
) -> Widths:
    """The widest step of each ladder that is at most `ratio` of the dense width.

    With `shares` a group loses its share times 1 - ratio of the width.
    """
    widths = {}
    for group in groups:
        due = (1 - (1 - ratio) * shares.get(group.name, 1.0)) * group.width
        fitting = [step for step in ladders[group.name] if math.prod(step) <= due + ROUNDING]
        widths[group.name] = max(fitting, key=math.prod, default=ladders[group.name][0])
    return widths


def kept_ratio(width: Width, group: Group, shares: Shares) -> float:
    """The ratio at which `widths_at` has a group at this width."""
    return 1 - (1 - math.prod(width) / group.width) / shares.get(group.name, 1.0)


def fill(
    widths: Widths,
    groups: Sequence[Group],
    ladders: Mapping[str, list[Width]],
    count: ParameterCount,
    budget: int,
    shares: Shares = ALIKE,
) -> Widths:
    """Widen by one step whichever group fits and is narrowest for its kind, until none fits."""
    widths = dict(widths)
    open_groups = {group.name: group for group in groups}
    while open_groups:
        name = min(
            open_groups, key=lambda name: kept_ratio(widths[name], open_groups[name], shares)
        )
        steps = ladders[name]
        place = steps.index(widths[name]) + 1
        wider = {**widths, name: steps[place]} if place < len(steps) else None
        if wider is not None and count(wider) <= budget:
            widths = wider
        else:
            del open_groups[name]
    return widths


def spend(
    groups: Sequence[Group],
    ladders: Mapping[str, list[Width]],
    count: ParameterCount,
    budget: int,
    shares: Shares = ALIKE,
) -> Widths:
    """The largest common ratio that the budget pays for, then `fill`."""
    low, high = 1 - max(1.0, 1 / min(shares.values(), default=1.0)), 1.0
    for _ in range(BISECTIONS):
        ratio = (low + high) / 2
        fits = count(widths_at(ratio, groups, ladders, shares)) <= budget
        low, high = (ratio, high) if fits else (low, ratio)
    return fill(widths_at(low, groups, ladders, shares), groups, ladders, count, budget, shares)


def choose_widths(
    groups: Sequence[Group],
    ladders: Mapping[str, list[Width]],
    count: ParameterCount,
    budget: int,
    shares: Shares = ALIKE,
) -> Widths:
    """At most `budget` parameters, in the proportions of the dense model as far as steps allow.

    shares: group -> how much of its width it loses relative to others, 1 by default.

    One step of the residual width is a tenth of a 90 % student, too much for `fill`: so both the
    step below and the step above its share are tried, and the more even layout wins.
    """

    def unevenness(widths: Widths) -> float:
        ratios = [max(ROUNDING, kept_ratio(widths[group.name], group, shares)) for group in groups]
        return max(ratios) / min(ratios)

    below = spend(groups, ladders, count, budget, shares)
    residual = max(groups, key=lambda group: len(group.axes)).name
    steps = ladders[residual]
    above = {**ladders, residual: steps[steps.index(below[residual]) + 1 :][:1]}
    if not above[residual] or count(widths_at(0.0, groups, above)) > budget:
        return below
    return min(below, spend(groups, above, count, budget, shares), key=unevenness)
