"""Which forms go together: all mixes worth having, from the cheapest to the most exact.

A candidate's cost is its share of the fp32 model's bytes plus its share of the fp32 model's time.
Divergences of single layers add up, nearly: so for every exchange rate of cost for nats each layer
chooses for itself, and as the rate rises layers move, one at a time, along the lower convex hull
of their (nats, cost).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from export.quantize.candidates import Candidate


@dataclass(frozen=True)
class Mix:
    """One candidate of every choice, in their order."""

    chosen: tuple[Candidate, ...]

    @property
    def nats(self) -> float:
        return sum(candidate.nats for candidate in self.chosen)

    @property
    def bytes(self) -> int:
        return sum(candidate.bytes for candidate in self.chosen)

    @property
    def us(self) -> float:
        return sum(candidate.us for candidate in self.chosen)


def list_mixes(measured: Sequence[Sequence[Candidate]]) -> list[Mix]:
    """Ascending in cost, descending in nats; the last has the least nats there are.

    measured: the candidates of every choice, fp32 among them.
    """
    hulls = [lower_hull(candidates, cost_weights(measured)) for candidates in measured]
    steps = []  # (nats saved for a unit of cost, choice, candidate): the best bargain comes first
    for number, hull in enumerate(hulls):
        for (before, cheap), (after, dear) in pairwise(hull):
            saved = (before.nats - after.nats) / (dear - cheap)
            steps.append((-saved, number, after))
    chosen = [hull[0][0] for hull in hulls]
    mixes = [Mix(tuple(chosen))]
    for _, number, candidate in sorted(steps, key=lambda step: step[:2]):
        chosen[number] = candidate
        mixes.append(Mix(tuple(chosen)))
    return mixes


def cost_weights(measured: Sequence[Sequence[Candidate]]) -> tuple[float, float]:
    """What a byte and a microsecond cost: the whole fp32 model costs 1 for each."""
    whole = [c for candidates in measured for c in candidates if c.form == "fp32"]
    return 1 / max(1, sum(c.bytes for c in whole)), 1 / max(1e-9, sum(c.us for c in whole))


def lower_hull(
    candidates: Sequence[Candidate], weights: tuple[float, float]
) -> list[tuple[Candidate, float]]:
    """The candidates that some exchange rate chooses, with their costs, from the cheapest on.

    (nats, cost) of (5, 1), (4, 2), (1, 3), (0, 9): the second goes, for the way from the first to
    the third saves more for less.
    """
    priced = [(c, weights[0] * c.bytes + weights[1] * c.us) for c in candidates]
    hull: list[tuple[Candidate, float]] = []
    for candidate, cost in sorted(priced, key=lambda one: (one[1], one[0].nats)):
        if hull and candidate.nats >= hull[-1][0].nats:
            continue
        while len(hull) > 1 and gain(hull[-2], hull[-1]) <= gain(hull[-2], (candidate, cost)):
            hull.pop()
        hull.append((candidate, cost))
    return hull


def gain(one: tuple[Candidate, float], other: tuple[Candidate, float]) -> float:
    """Nats saved for a unit of cost, on the way from one to the other."""
    return (one[0].nats - other[0].nats) / (other[1] - one[1])


def explain(candidates: Sequence[Candidate], chosen: Candidate) -> str:
    """Why a layer has the form it has, where that is a wide one; empty for 8 bits and fewer."""
    if chosen.form not in ("half", "fp32"):
        return ""
    choice = chosen.choice
    narrow = [c for c in candidates if c.form not in ("half", "fp32")]
    if not narrow:
        what = "no narrower form holds it" if chosen.form == "half" else "no other form holds it"
        return f"{choice.storage}: {what}"
    best = min(narrow, key=lambda candidate: candidate.nats)
    saved = f"{(chosen.bytes - best.bytes) / 1000:.1f} kB"
    time = f"{abs(chosen.us - best.us):.1f} us a chunk"
    return (
        f"{best.form} would move the output by {best.nats:.1e} nats to save {saved} and "
        f"{'take' if chosen.us < best.us else 'save'} {time}"
    )
