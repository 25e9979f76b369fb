"""Which share each layer loses, when losing costs them differently.

    s_1, s_2, ..  = argmin sum_i loss_i(s_i)   with   parameters(s_1, s_2, ..) <= budget

That losses of single layers add up is not true of large ones, but good enough to choose by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

STEPS = 100  # a layer loses whole hundredths
SMALLEST_SHARE = 0.02  # every layer loses something, so that a ramp can begin
SMALLEST_LOSS = 1e-7  # nats; below is rounding
FIRST_POWER = 4.0  # loss ~ s^4 up to the first level: 3.9 from 0.3 to 0.5 in a feed-forward layer

Names: TypeAlias = tuple[str, ...]
Terms: TypeAlias = Mapping[Names, float]


@dataclass(frozen=True)
class Layer:
    """size: parameters that go with it when it goes whole. losses: share gone -> nats a label."""

    name: str
    pattern: str
    size: int
    losses: Mapping[float, float]

    def loss_at(self, share: float) -> float:
        """Losses grow like exp(share), so logarithms are interpolated; they never fall."""
        points, worst = [], SMALLEST_LOSS
        for level, loss in sorted(self.losses.items()):
            worst = max(worst, loss)
            points.append((level, math.log(worst)))
        level, logarithm = points[0]
        if share < level:
            return math.exp(logarithm) * (share / level) ** FIRST_POWER
        for (low, below), (high, above) in pairwise(points):
            if share < high:
                return math.exp(below + (above - below) * (share - low) / (high - low))
        return worst


@dataclass(frozen=True)
class Sensitivity:
    """terms: parameters are the sum of coefficients times the shares that these layers keep."""

    layers: Sequence[Layer]
    terms: Terms

    @property
    def num_parameters(self) -> float:
        return sum(self.terms.values())


def allocate(sensitivity: Sensitivity, sparsity: float) -> dict[str, float]:
    """layer -> share of it that goes, so that the whole loses `sparsity` at the least loss.

    Hundredth by hundredth from the layer whose next one costs least a parameter; of equals from
    the one that lost least. No layer loses more than was measured of it, which may leave the
    budget unmet: shares are relative, and whoever prunes stretches them.
    """
    budget = (1 - sparsity) * sensitivity.num_parameters
    costs = {layer.name: rising_costs(layer) for layer in sensitivity.layers}
    taken = dict.fromkeys(costs, 0)
    while True:
        kept = {name: 1 - count / STEPS for name, count in taken.items()}
        left, freed = count_parameters(sensitivity.terms, kept)
        prices = {
            name: (costs[name][count] / max(freed[name], 1e-9), count)
            for name, count in taken.items()
            if count < len(costs[name])
        }
        if left <= budget or not prices:
            break
        taken[min(prices, key=lambda name: prices[name])] += 1
    return {name: max(SMALLEST_SHARE, count / STEPS) for name, count in taken.items()}


def soften(shares: Mapping[str, float]) -> dict[str, float]:
    """Half-way between these shares and all alike.

    What training restores is not in a loss without training: by the plain shares layers that seem
    to do nothing lose 99 %, and learn nothing any more either (bench/LOG.md).
    """
    most = max(shares.values())
    return {name: 0.5 + 0.5 * share / most for name, share in shares.items()}


def rising_costs(layer: Layer) -> list[float]:
    """What each next hundredth costs, nats a label: the slopes of the loss's lower convex hull.

    Losses level off where nothing of a layer's work is left; without the hull it would look the
    cheaper the more of it is gone.
    """
    top = int(STEPS * max(layer.losses) + 1e-9)
    losses = [0.0, *(layer.loss_at(step / STEPS) for step in range(1, top + 1))]
    hull: list[tuple[int, float]] = []
    for point in enumerate(losses):
        while len(hull) > 1 and slope(hull[-2], hull[-1]) >= slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    pairs = pairwise(hull)
    return [slope(low, high) for low, high in pairs for _ in range(high[0] - low[0])]


def slope(low: tuple[int, float], high: tuple[int, float]) -> float:
    return (high[1] - low[1]) / (high[0] - low[0])


def count_parameters(terms: Terms, kept: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """Parameters at these shares kept, and their derivative by each of them.

    >>> count_parameters({("a", "b"): 100, ("a",): 10}, {"a": 0.5, "b": 0.2})
    (15.0, {'a': 30.0, 'b': 50.0})
    """
    total, freed = 0.0, dict.fromkeys(kept, 0.0)
    for names, coefficient in terms.items():
        shares = [kept.get(name, 1.0) for name in names]
        total += coefficient * math.prod(shares)
        for place, name in enumerate(names):
            if name in freed:
                freed[name] += coefficient * math.prod(shares[:place] + shares[place + 1 :])
    return total, freed
