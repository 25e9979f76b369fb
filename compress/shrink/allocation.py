"""How a budget of weights is spread over layers."""

from __future__ import annotations

from collections.abc import Mapping

BISECTIONS = 40  # the common share to 1e-12
Ladder = tuple[int, int, int]  # values of a weight, fewest that stay, values of a step


def spread(
    ladders: Mapping[str, Ladder], budget: int, shares: Mapping[str, float]
) -> dict[str, int]:
    """weight -> values that stay: at most `budget` together, nearly all of it used.

    Every weight loses the same share q of its values, or q times its own of `shares`; what the
    steps leave over goes to the weights that are furthest below their due.

    >>> spread({"a": (100, 10, 10), "b": (200, 20, 1)}, 95, {"a": 1.0, "b": 1.0})
    {'a': 30, 'b': 65}
    """

    def due(name: str, share: float) -> float:
        return ladders[name][0] * (1 - min(1.0, share * shares[name]))

    def kept(share: float) -> dict[str, int]:
        result = {}
        for name, (values, fewest, step) in ladders.items():
            steps = int(due(name, share) - fewest) // step
            result[name] = min(values, max(fewest, fewest + steps * step))
        return result

    low, high = 0.0, max(1.0, 1.0 / min(shares.values()))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        fits = sum(kept(middle).values()) <= budget
        low, high = (low, middle) if fits else (middle, high)
    spent = kept(high)
    left = budget - sum(spent.values())
    order = sorted(ladders, key=lambda name: (spent[name] - due(name, high)) / ladders[name][0])
    for name in order:
        values, _, step = ladders[name]
        more = min(left, values - spent[name], step if step > 1 else left) // step * step
        spent[name] += max(0, more)
        left -= max(0, more)
    return spent
