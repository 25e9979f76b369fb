"""Scores and budgets by hand."""

from __future__ import annotations

import copy
import doctest
import importlib

import pytest
import torch
from torch import nn

from compress.shrink.budget import ladder
from compress.shrink.channel import ChannelPruner
from compress.shrink.groups import Axis
from compress.shrink.scores import best, rows, score_units, score_weights


def test_the_weakest_columns_go():
    weight = nn.Parameter(torch.tensor([[1.0, -2.0, 3.0, -4.0]]))
    scores = score_units({"weight": weight}, [Axis("weight", 1, 1)], 4, "magnitude")
    kept = best(scores, 2)
    assert scores.tolist() == pytest.approx([1 / 7.5, 4 / 7.5, 9 / 7.5, 16 / 7.5])
    assert kept.tolist() == [2, 3]
    assert weight[:, kept].tolist() == [[3.0, -4.0]]


def test_scores_of_single_weights_are_their_squares():
    weight = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    assert score_weights("weight", weight, "magnitude").tolist() == [[1.0, 4.0], [9.0, 0.25]]


def test_slices_of_a_unit_are_summed():
    parameters = {"up": nn.Parameter(torch.eye(2)), "down": nn.Parameter(torch.tensor([[3.0, 1]]))}
    axes = [Axis("up", 0, 1), Axis("down", 1, 1)]
    assert score_units(parameters, axes, 2, "magnitude").tolist() == pytest.approx([10 / 6, 2 / 6])


def test_four_gates_belong_to_one_unit():
    gates = torch.arange(8.0)[
        :, None
    ]  # two units: gates 0 2 4 6 of the first, 1 3 5 7 of the other
    assert rows(gates, Axis("weight", 0, 4), 2).tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_ladder_shrinks_heads_before_dropping_them():
    assert ladder((3, 32), smallest=16, round_to=8) == [(1, 16), (2, 16), (3, 16), (3, 24), (3, 32)]
    assert ladder((1, 20), smallest=16, round_to=8) == [(1, 16), (1, 20)]
    assert ladder((1, 12), smallest=16, round_to=8) == [(1, 12)]


def test_count_is_exact(model):
    pruner = ChannelPruner(model)
    for sparsity in (0.0, 0.3, 0.6):
        widths = pruner.plan(sparsity)
        student = copy.deepcopy(model)
        ChannelPruner(student).prune_widths(widths)
        assert student.num_parameters == pruner.count(widths)


@pytest.mark.parametrize("name", ["budget", "channel", "evidence", "heads", "schedule", "scores"])
def test_written_examples(name):
    results = doctest.testmod(importlib.import_module(f"compress.shrink.{name}"))
    assert results.attempted > 0
    assert results.failed == 0
