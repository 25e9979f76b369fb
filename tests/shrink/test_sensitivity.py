"""What single layers cost, and what is made of it: shares that meet a budget at the least loss."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from compress.data.batches import Batch
from compress.shrink.pruner import Cut, build_pruner, matrices
from compress.shrink.sensitivity import draw_table, measure_sensitivity
from compress.shrink.shares import (
    Layer,
    Sensitivity,
    allocate,
    count_parameters,
    rising_costs,
    soften,
)
from streaming.errors import InputError
from tests.tiny_teacher import build_teacher

LEVELS = (0.5, 0.9)


def toy(**losses):
    """Layers of 1000 values each beside 200 that nobody prunes; `losses` at 0.5 and 0.9."""
    layers = [
        Layer(name, "unstructured", 1000, dict(zip(LEVELS, some, strict=True)))
        for name, some in losses.items()
    ]
    return Sensitivity(layers, {(): 200} | {(name,): 1000 for name in losses})


def left(sensitivity, shares):
    kept = {name: 1 - share for name, share in shares.items()}
    return count_parameters(sensitivity.terms, kept)[0]


def test_an_insensitive_layer_is_pruned_most_and_the_budget_is_met():
    sensitivity = toy(hard=(0.2, 3.0), easy=(0.0001, 0.001), middle=(0.02, 0.3))
    shares = allocate(sensitivity, 0.5)
    assert shares["easy"] == 0.9, "as far as it was measured"
    assert shares["hard"] < shares["middle"] < shares["easy"]
    assert 1600 - 10 < left(sensitivity, shares) <= 1600


def test_equal_layers_lose_equal_shares():
    shares = allocate(toy(a=(0.1, 1.0), b=(0.1, 1.0), c=(0.1, 1.0)), 0.6)
    assert max(shares.values()) - min(shares.values()) <= 0.01


SIZES = {"small": 100, "large": 1000}


def test_a_small_layer_of_the_same_loss_loses_less():
    """What counts is the loss a parameter."""
    layers = [Layer(name, "2:4", size, {0.5: 0.1, 0.9: 1.0}) for name, size in SIZES.items()]
    shares = allocate(Sensitivity(layers, {(name,): size for name, size in SIZES.items()}), 0.5)
    assert shares["small"] < shares["large"]


def test_softened_shares_are_halfway_to_uniform():
    assert soften({"a": 0.8, "b": 0.4, "c": 0.0}) == {"a": 1.0, "b": 0.75, "c": 0.5}


def test_no_shares_cost_less_than_those_chosen():
    """Slow twin: all shares in steps of a hundredth that meet the budget."""
    sensitivity = toy(a=(0.3, 2.0), b=(0.05, 1.5), c=(0.01, 0.2))
    budget = 0.4 * sensitivity.num_parameters

    def loss(shares):
        return sum(layer.loss_at(shares[layer.name]) for layer in sensitivity.layers)

    cheapest = float("inf")
    for a, b in product(range(91), repeat=2):
        c = next((c for c in range(91) if 200 + 10 * (300 - a - b - c) <= budget), None)
        if c is not None:
            cheapest = min(cheapest, loss({"a": a / 100, "b": b / 100, "c": c / 100}))
    chosen = allocate(sensitivity, 0.6)
    assert left(sensitivity, chosen) <= budget
    assert loss(chosen) <= 1.01 * cheapest


def test_losses_between_levels():
    layer = Layer("a", "unstructured", 1000, {0.5: 0.1, 0.9: 1.6, 0.95: 1.2})
    assert layer.loss_at(0.7) == pytest.approx(0.4), "the geometric mean halfway"
    assert layer.loss_at(0.25) == pytest.approx(0.1 / 16)
    assert layer.loss_at(0.95) == layer.loss_at(0.9) == pytest.approx(1.6), "losses never fall"
    costs = rising_costs(layer)
    assert len(costs) == 95
    assert costs == sorted(costs)
    assert sum(costs) == pytest.approx(1.6)


def test_products_of_channel_groups():
    """A matrix between two groups shrinks with both: 100 a b + 10 a."""
    layers = [Layer(name, "channel", 100, {0.5: 0.1, 0.9: 1.0}) for name in "ab"]
    sensitivity = Sensitivity(layers, {("a", "b"): 100, ("a",): 10})
    shares = allocate(sensitivity, 0.75)
    assert left(sensitivity, shares) <= 27.5
    assert 0.4 < shares["b"] <= shares["a"] < 0.6


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    return Batch(
        features=torch.randn(2, 96, 80, generator=generator) * 4 - 6,
        feature_lengths=torch.tensor([96, 64]),
        targets=torch.randint(1, 48, (2, 5), generator=generator),
        target_lengths=torch.tensor([5, 3]),
        phones=torch.zeros(2, 96, dtype=torch.uint8),
        rows=[],
    )


@pytest.fixture(scope="module")
def teacher():
    return build_teacher()


IDLE = "encoder.layers.1.feed_forward_in.down"


@pytest.fixture(scope="module")
def half_idle():
    """A teacher whose one layer says nothing, so that nothing is lost without it."""
    model = build_teacher()
    with torch.no_grad():
        model.get_submodule(IDLE).weight.zero_()
    return model


@pytest.mark.parametrize("pattern", ["unstructured", "block:8", "2:4"])
def test_zeros_one_layer_at_a_time(pattern, half_idle, batch):
    before = {name: tensor.clone() for name, tensor in half_idle.state_dict().items()}
    cut = Cut(pattern, exclude=["front.first", "joiner"])
    sensitivity = measure_sensitivity(half_idle, cut, [batch])
    after = half_idle.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    losses = {layer.name: layer.losses for layer in sensitivity.layers}
    assert set(losses) == {name for name in matrices(half_idle) if "front.first" not in name} - {
        "joiner.output"
    }
    assert sensitivity.num_parameters == half_idle.num_parameters
    assert max(losses[IDLE].values()) < 1e-6
    if pattern == "2:4":
        assert all(list(some) == [0.5] for some in losses.values())
    target = 0.4 if pattern == "2:4" else 0.7
    shares = allocate(sensitivity, target)
    assert shares[IDLE] == pytest.approx(max(losses[IDLE]), abs=0.011), "all that was measured"
    student = build_teacher()
    pruner = build_pruner(
        student, half_idle.config, Cut(pattern, exclude=cut.exclude, shares=shares)
    )
    pruner.prune_to(target)
    assert pruner.sparsity == pytest.approx(target, abs=0.01)
    gone = {name: 1 - (m := pruner.masks[f"{name}.weight"]).sum() / m.numel() for name in losses}
    assert gone[IDLE] > max(gone.values()) - 0.05
    assert min(gone.values()) < gone[IDLE] - 0.1


def test_channels_one_group_at_a_time(teacher, batch):
    sensitivity = measure_sensitivity(teacher, Cut("channel"), [batch], levels=(0.5, 0.75))
    assert round(sensitivity.num_parameters) == teacher.num_parameters
    assert all(loss > 0 for layer in sensitivity.layers for loss in layer.losses.values())
    shares = allocate(sensitivity, 0.6)
    assert left(sensitivity, shares) <= 0.4 * teacher.num_parameters
    student = build_teacher()
    pruner = build_pruner(student, teacher.config, Cut("channel", shares=shares))
    pruner.prune_to(0.6)
    assert 0.36 * teacher.num_parameters < student.num_parameters <= 0.4 * teacher.num_parameters
    most, least = max(shares, key=shares.get), min(shares, key=shares.get)
    gone = {
        group.name: 1 - math.prod(pruner.ladder_of(group, 1)[-1]) / group.width
        for group in pruner.groups
    }
    assert gone[most] > gone[least]


def test_patterns_of_whole_layers_have_no_shares(teacher, batch):
    with pytest.raises(InputError, match="leave allocation uniform"):
        measure_sensitivity(teacher, Cut("layers"), [batch])


def test_the_table_says_what_goes():
    table = draw_table(toy(a=(0.1, 1.0), b=(0.2, 2.0)), {"a": 0.8, "b": 0.4})
    assert list(table.columns[-1].cells) == ["1.00", "0.50"], "relative to the layer losing most"
    assert list(table.columns[2].cells) == ["0.1", "0.2"]
