"""Token agreement: one minus the edit distance over the length of the longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from export.agreement import edit_distance, token_agreement


def test_edit_distance_by_hand():
    assert edit_distance([1, 2, 3], [1, 3]) == 1
    assert edit_distance([1, 2, 3], [4, 2, 3, 5]) == 2
    assert token_agreement([[1, 2], []], [[1, 3], []]) == 0.5
    assert token_agreement([[]], [[]]) == 1.0


def slow_distance(one, other):
    if not one or not other:
        return len(one) + len(other)
    return min(
        slow_distance(one[1:], other) + 1,
        slow_distance(one, other[1:]) + 1,
        slow_distance(one[1:], other[1:]) + (one[0] != other[0]),
    )


@given(st.lists(st.integers(0, 2), max_size=5), st.lists(st.integers(0, 2), max_size=5))
def test_edit_distance_equals_its_definition(one, other):
    assert edit_distance(one, other) == slow_distance(one, other)
