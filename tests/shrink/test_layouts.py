"""Where zeros may lie: written examples, counts, and what is refused."""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.shrink.allocation import spread
from compress.shrink.layouts import Block, NOfM, Unstructured, parse_layout
from streaming.errors import InputError


@pytest.mark.parametrize("name", ["layouts", "allocation"])
def test_written_examples(name):
    module = importlib.import_module(f"compress.shrink.{name}")
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted > 0
    assert result.failed == 0


@given(kept=st.integers(1, 96), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_unstructured_keeps_exactly_the_largest(kept, seed):
    scores = torch.rand(8, 12, generator=torch.Generator().manual_seed(seed))
    mask = Unstructured().mask(scores, kept)
    assert int(mask.sum()) == kept
    assert scores[mask].min() >= scores[~mask].max() if kept < 96 else mask.all()


@given(columns=st.integers(1, 12), rows=st.sampled_from([1, 2, 4, 8]), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_blocks_share_columns_and_are_balanced(columns, rows, seed):
    scores = torch.rand(8, 12, generator=torch.Generator().manual_seed(seed))
    mask = Block(rows).mask(scores, columns * 8)
    blocks = mask.reshape(-1, rows, 12)
    assert (blocks == blocks[:, :1]).all()
    assert (mask.sum(1) == columns).all()
    sums = scores.reshape(-1, rows, 12).sum(1)
    for block, total in zip(blocks[:, 0], sums, strict=True):
        assert columns == 12 or total[block].min() >= total[~block].max()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 8)])
def test_at_most_n_of_m_in_the_end(n, m):
    scores = torch.rand(6, 26)
    layout = NOfM(n, m)
    fewest, _ = layout.steps((6, 26))
    mask = layout.mask(scores, fewest)
    whole = 26 // m * m
    assert (mask[:, :whole].reshape(-1, m).sum(1) == n).all()
    assert mask[:, whole:].all()
    assert int(mask.sum()) == fewest
    halfway = layout.mask(scores, fewest + 20)
    assert int(halfway.sum()) == fewest + 20
    assert (halfway | ~mask).all()  # what stays in the end was never away


@pytest.mark.parametrize(
    ("spec", "shape", "says"),
    [("block:7", (48, 8), "do not divide.*1, 2, 3, 4, 6"), ("2:4", (8, 3), "fewer than the 4")],
)
def test_what_a_shape_refuses(spec, shape, says):
    with pytest.raises(InputError, match=says):
        parse_layout(spec).check("encoder.project.weight", shape)


@pytest.mark.parametrize("spec", ["4:2", "0:4", "block:0"])
def test_sizes_without_sense(spec):
    with pytest.raises(InputError, match="example"):
        parse_layout(spec)


@pytest.mark.parametrize("spec", ["channel", "layers", "blocks:4", "2:"])
def test_other_patterns_are_no_layouts(spec):
    assert parse_layout(spec) is None


@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 8)), min_size=1, max_size=6),
    part=st.floats(0.05, 1.0),
)
@settings(max_examples=60, deadline=None)
def test_a_budget_is_kept_and_used(sizes, part):
    ladders = {str(i): (steps * step, step, step) for i, (steps, step) in enumerate(sizes)}
    fewest = sum(low for _, low, _ in ladders.values())
    total = sum(values for values, _, _ in ladders.values())
    budget = max(fewest, int(part * total))
    spent = spread(ladders, budget, dict.fromkeys(ladders, 1.0))
    assert sum(spent.values()) <= budget
    assert all(spent[name] >= low for name, (_, low, _) in ladders.items())
    room = budget - sum(spent.values())
    coarsest = max(step for _, _, step in ladders.values())
    assert room < coarsest or spent == {name: ladders[name][0] for name in ladders}


def test_a_layer_with_a_larger_share_loses_more():
    ladders = {"a": (1000, 10, 1), "b": (1000, 10, 1)}
    spent = spread(ladders, 1000, {"a": 3.0, "b": 1.0})
    assert spent == {"a": 250, "b": 750}
