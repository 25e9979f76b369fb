"""When to remove how much, by hand."""

from __future__ import annotations

import pytest

from compress.shrink.schedule import check_sparsity, pruning_steps, sparsity_at
from streaming.errors import InputError


@pytest.mark.parametrize("kind", ["cubic", "linear"])
def test_endpoints_are_inclusive(kind):
    ramp = [sparsity_at(step, 10, 20, 0.9, initial=0.2, kind=kind) for step in range(30)]
    assert ramp[:11] == [0.2] * 11
    assert ramp[11] > 0.2 and ramp[19] < 0.9
    assert ramp[20:] == [0.9] * 10
    assert ramp == sorted(ramp)


def test_cubic_by_hand():
    # Half of the way: 0.8 + (0 - 0.8) * 0.5^3 = 0.7.
    assert sparsity_at(50, 0, 100, 0.8) == pytest.approx(0.7)
    assert sparsity_at(50, 0, 100, 0.8, kind="linear") == pytest.approx(0.4)


def test_one_shot_jumps_at_begin():
    assert [sparsity_at(step, 2, 9, 0.5, kind="one-shot") for step in range(4)] == [0, 0, 0.5, 0.5]


def test_a_ramp_of_no_length_is_a_jump():
    assert [sparsity_at(step, 5, 5, 0.5) for step in (4, 5, 6)] == [0, 0.5, 0.5]


def test_pruning_steps_contain_both_ends():
    assert pruning_steps(10, 45, 10) == [10, 20, 30, 40, 45]
    assert pruning_steps(10, 40, 10) == [10, 20, 30, 40]
    assert pruning_steps(7, 7, 10) == [7]


@pytest.mark.parametrize(
    ("sparsity", "advice"),
    [
        (90, "got 90: did you mean 0.9?"),
        (1.0, "got 1: nothing would be left, try 0.9"),
        (-1, "got -1"),
        (-0.9, "did you mean 0.9?"),
        (float("nan"), "got nan"),
    ],
)
def test_sparsity_is_a_share(sparsity, advice):
    with pytest.raises(InputError) as error:
        check_sparsity(sparsity)
    assert advice in str(error.value)
    assert "sparsity is the share removed, in [0, 1)" in str(error.value)


def test_wrong_ramps():
    with pytest.raises(InputError, match="choose one of cubic, linear, one-shot"):
        sparsity_at(0, 0, 1, 0.5, kind="cube")
    with pytest.raises(InputError, match="swap them"):
        sparsity_at(0, 5, 1, 0.5)
    with pytest.raises(InputError, match="at least 1"):
        pruning_steps(0, 10, 0)
