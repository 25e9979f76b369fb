"""How much two lists of tokens agree."""

from __future__ import annotations

from collections.abc import Sequence


def token_agreement(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> float:
    """1 - edit distance / length of the longer, over all streams; 1 where neither says a word."""
    pairs = list(zip(one, other, strict=True))
    length = sum(max(len(a), len(b)) for a, b in pairs)
    return 1 - sum(edit_distance(a, b) for a, b in pairs) / length if length else 1.0


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Insertions, deletions and substitutions; (1, 2, 3) and (1, 3) differ by 1."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
