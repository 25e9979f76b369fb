"""Rows of a block side by side: what the network computes stays, what blocks can hold grows."""

from __future__ import annotations

from copy import deepcopy
from itertools import permutations

import pytest
import torch

from compress.shrink.arrange import arrange_rows_, gain_of, order_rows, place
from compress.shrink.layouts import Block
from compress.shrink.pruner import Cut, choose_layouts
from compress.shrink.stage import ShrinkStage
from tests.tiny_teacher import build_teacher

PARTS = ("feed_forward_in", "feed_forward_out", "convolution")


def held(matrix, rows, share):
    """Squares in the best columns of blocks of neighbouring rows."""
    kept = round(share * matrix.shape[1]) * len(matrix)
    return float((matrix.square() * Block(rows).mask(matrix.square(), kept)).sum())


def encode(model):
    torch.manual_seed(0)
    features = torch.randn(2, 64, model.encoder.num_mel_bins)
    with torch.no_grad():
        return model.encoder(features, torch.tensor([64, 48]))[0]


def test_the_network_computes_the_same(model):
    """Biases and norms are random, so that no wrong index hides behind a 0 or 1."""
    arranged = deepcopy(model)
    arrange_rows_(arranged, choose_layouts(model, Cut("block:8")))
    moved = [n for n, p in model.named_parameters() if not p.equal(arranged.get_parameter(n))]
    conformer = model.config.encoder.kind == "conformer"
    assert bool(moved) == conformer, "the units of an LSTM lie in states: they stay"
    assert {name.split(".")[3] for name in moved} == ({*PARTS} if conformer else set())
    assert (encode(model) - encode(arranged)).abs().max() < 1e-5


def test_blocks_hold_more_afterwards():
    model = build_teacher()
    arranged = deepcopy(model)
    arrange_rows_(arranged, choose_layouts(model, Cut("block:8")))
    name = "encoder.layers.0.feed_forward_in.up.weight"
    before, after = (held(m.get_parameter(name).detach(), 8, 0.1) for m in (model, arranged))
    assert after > 1.05 * before


def test_only_blocks_are_arranged():
    model = build_teacher()
    arranged = deepcopy(model)
    arrange_rows_(arranged, choose_layouts(model, Cut("unstructured")))
    arrange_rows_(arranged, {"encoder.layers.0.feed_forward_in.up": Block(7)})
    for name, parameter in model.named_parameters():
        assert parameter.equal(arranged.get_parameter(name))


def test_hidden_order_is_found():
    """Rows of four kinds, shuffled: each kind comes together."""
    torch.manual_seed(0)
    kinds = torch.randperm(32) % 4
    matrix = 0.1 * torch.rand(32, 40)
    for row, kind in enumerate(kinds.tolist()):
        matrix[row, 10 * kind : 10 * kind + 4] += 1
    order = order_rows([matrix.square()], rows=8)
    assert sorted(order.tolist()) == list(range(32))
    assert kinds[order].view(4, 8).float().std(1).eq(0).all()


def test_the_best_order_of_a_small_matrix():
    """Against all orders of six rows in blocks of three; never worse than as they were."""
    for seed in range(5):
        torch.manual_seed(seed)
        matrix = torch.rand(6, 8)
        best = max(held(matrix[list(order)], 3, 0.25) for order in permutations(range(6)))
        found = held(matrix[order_rows([matrix.square()], 3, 0.25)], 3, 0.25)
        assert held(matrix, 3, 0.25) <= found <= best + 1e-6
        assert found > 0.9 * best


def test_places_are_equally_many():
    torch.manual_seed(0)
    gains = torch.rand(24, 6)
    blocks = place(gains, 4)
    assert torch.bincount(blocks).tolist() == [4] * 6
    by_chance = gains.mean(1).sum()
    assert gains.gather(1, blocks[:, None]).sum() > 1.4 * by_chance
    assert place(torch.zeros(8, 2), 4).bincount().tolist() == [4, 4]


def test_gains_by_a_slow_twin():
    torch.manual_seed(0)
    squares, blocks = torch.rand(6, 5), torch.tensor([0, 1, 0, 1, 1, 0])
    found = gain_of(squares, blocks, 3, 0.4)
    for block in range(2):
        together = sum(squares[row] for row in range(6) if blocks[row] == block)
        columns = sorted(range(5), key=lambda c: -float(together[c]))[:2]
        for row in range(6):
            expected = sum(float(squares[row, c]) for c in columns)
            assert float(found[row, block]) == pytest.approx(expected)


def test_a_student_goes_on_in_its_order():
    """A run begins with arranged rows; one that goes on from a student leaves them."""
    teacher = build_teacher()
    stage = ShrinkStage(teacher, 0.5, (0, 4, 1), cut=Cut("block:8"))
    weight = "encoder.layers.0.feed_forward_in.up.weight"
    assert not stage.student.get_parameter(weight).equal(teacher.get_parameter(weight))
    again = ShrinkStage(teacher, 0.6, (0, 4, 1), cut=Cut("block:8"), start=stage.student)
    assert again.student.get_parameter(weight).equal(stage.student.get_parameter(weight))
