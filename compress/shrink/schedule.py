"""When to remove how much. sparsity = share of the whole model's parameters removed, in [0, 1)."""

from __future__ import annotations

import math

from streaming.errors import InputError

SCHEDULES = {
    "cubic": lambda done: 1 - (1 - done) ** 3,
    "linear": lambda done: done,
    "one-shot": lambda done: 1.0,
}


def check_sparsity(sparsity: float) -> float:
    """`sparsity` itself if it lies in [0, 1); raises InputError with the likely intention."""
    if 0 <= sparsity < 1:
        return sparsity
    message = f"sparsity is the share removed, in [0, 1); got {sparsity:g}"
    if 1 < sparsity < 100:
        message += f": did you mean {sparsity / 100:g}?"
    elif sparsity == 1:
        message += ": nothing would be left, try 0.9"
    elif -1 < sparsity < 0:
        message += f": did you mean {-sparsity:g}?"
    raise InputError(message)


def sparsity_at(
    step: int,
    begin: int,
    end: int,
    final: float,
    initial: float = 0.0,
    kind: str = "cubic",
) -> float:
    """s(t) = s_f + (s_i - s_f) (1 - (t - t0) / (t1 - t0))^3, Zhu & Gupta, arXiv 1710.01878.

    `initial` up to and including step `begin`, `final` from step `end` on. Fast at first, where
    there is most to spare, slow at the end. "linear" has the same endpoints; "one-shot" jumps to
    `final` at `begin`.
    """
    if kind not in SCHEDULES:
        raise InputError(f"no schedule named {kind!r}: choose one of {', '.join(SCHEDULES)}")
    check_sparsity(final)
    check_sparsity(initial)
    if end < begin:
        raise InputError(f"the ramp ends at step {end}, before its begin {begin}: swap them")
    if step < begin:
        return initial
    if step >= end:
        return final
    return initial + (final - initial) * SCHEDULES[kind]((step - begin) / (end - begin))


def pruning_steps(begin: int, end: int, frequency: int) -> list[int]:
    """begin, begin + frequency, ..., end; both endpoints are always among them.

    >>> pruning_steps(10, 45, 10)
    [10, 20, 30, 40, 45]
    """
    if frequency < 1:
        raise InputError(f"pruning frequency is counted in steps, at least 1; got {frequency}")
    count = math.ceil((end - begin) / frequency)
    return [begin + index * frequency for index in range(count)] + [end]
