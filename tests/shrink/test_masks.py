"""Zeros: how many, where, that they stay, and that weights may come back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compress.models.config import TransducerConfig
from compress.models.transducer import Transducer
from compress.shrink.layouts import parse_layout
from compress.shrink.masks import MaskPruner, matrix_shape
from compress.shrink.pruner import Cut, MixedPruner, build_pruner, matrices
from streaming.errors import InputError

SPECS = ["unstructured", "block:8", "2:4"]


def build(model, spec, **settings):
    return MaskPruner(model, layouts_of(model, spec), model.num_parameters, **settings)


def layouts_of(model, spec):
    """The vocabulary of 23 has no blocks of 8."""
    names = [name for name in matrices(model) if spec != "block:8" or "joiner" not in name]
    return {name: parse_layout(spec) for name in names}


def reach(spec):
    return 0.3 if spec == "2:4" else 0.7


@pytest.mark.parametrize("spec", SPECS)
def test_measured_zeros_are_the_sparsity_asked_for(model, spec):
    dense = model.num_parameters
    pruner = build(model, spec)
    pruner.prune_to(reach(spec))
    assert model.num_parameters == dense
    zeros = dense - model.num_kept
    assert zeros == sum(int((~mask).sum()) for mask in pruner.masks.values())
    assert pruner.sparsity == pytest.approx(zeros / dense)
    assert reach(spec) <= zeros / dense < reach(spec) + 0.02
    assert set(model.config.sparse.values()) == {spec}


@pytest.mark.parametrize("spec", SPECS)
def test_masked_weights_are_the_dense_ones_or_zero(model, spec):
    dense = copy.deepcopy(model)
    pruner = build(model, spec)
    pruner.prune_to(reach(spec))
    for name, parameter in model.named_parameters():
        before = dense.get_parameter(name)
        mask = pruner.masks.get(name, torch.ones_like(before, dtype=torch.bool))
        assert torch.equal(parameter, torch.where(mask, before, 0.0))


def test_embedding_norms_and_biases_stay_dense(model):
    pruner = build(model, "unstructured")
    pruner.prune_to(0.8)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or "embedding" in name or "depthwise" in name:
            assert name not in pruner.masks
            assert (parameter != 0).all()


def test_columns_of_every_gate_of_an_lstm():
    lstm = nn.LSTM(6, 8)
    assert matrix_shape(lstm.weight_ih_l0) == (32, 6)
    assert matrix_shape(nn.Conv1d(5, 7, 3).weight) == (7, 15)


def train_step(model, optimizer, seed):
    features = torch.randn(2, 16, 80, generator=torch.Generator().manual_seed(seed)) * 4 - 6
    encoded, _ = model.encoder(features, torch.tensor([16, 16]))
    predicted = model.predictor.forward_sequence(torch.tensor([[1, 2, 3]] * 2))
    loss = model.joiner(encoded, predicted[:, : encoded.shape[1]]).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("spec", SPECS)
def test_zeros_stay_zeros_while_an_optimiser_with_momentum_goes_on(model, spec):
    pruner = build(model, spec)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(6):
        if step in (1, 3):
            pruner.prune_to(reach(spec) * step / 3, optimizer)
        train_step(model, optimizer, step)
        pruner.after_step()
        for name, mask in pruner.masks.items():
            assert not model.get_parameter(name)[~mask].any()
            assert model.get_parameter(name)[mask].all()
    assert model.num_kept == pruner.num_kept


def test_a_hidden_weight_moves_and_comes_back_by_hand():
    """weight [3, 1] at one half keeps 3; a gradient of -4 grows the hidden 1 to 5, 3 stays 3."""
    model = Transducer(small_config()).eval()
    layer = model.joiner.output
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 1.0]] * 3))
    pruner = MaskPruner(model, {"joiner.output": parse_layout("unstructured")}, 6)
    name = "joiner.output.weight"
    pruner.masks[name] = torch.tensor([[True, False]] * 3)
    layer.weight.data.mul_(pruner.masks[name])
    optimizer = torch.optim.SGD([layer.weight], lr=1.0)
    layer.weight.grad = torch.tensor([[0.0, -4.0]] * 3)
    optimizer.step()
    pruner.after_step()
    assert torch.equal(layer.weight.detach(), torch.tensor([[3.0, 0.0]] * 3))
    assert torch.equal(pruner.hidden[name], torch.tensor([[3.0, 5.0]] * 3))
    mask = pruner.layouts[name].mask(pruner.hidden[name].square(), 3)
    assert torch.equal(mask, torch.tensor([[False, True]] * 3))


def small_config():
    return TransducerConfig(
        vocab_size=3,
        encoder={
            "kind": "lstm", "subsampling_width": 4, "width": 4, "joint_width": 2, "hidden": [4]
        },
        predictor={"kind": "stateless", "width": 2, "joint_width": 2},
    )  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_a_saved_student_goes_on_with_its_zeros(model, spec, outputs):
    pruner = build(model, spec)
    pruner.prune_to(reach(spec) / 2)
    config = TransducerConfig.model_validate_json(model.config.model_dump_json())
    again = Transducer(config).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(outputs(again), outputs(model))
    resumed = build(again, spec)
    assert resumed.sparsity == pruner.sparsity
    resumed.prune_to(reach(spec))
    for name, mask in pruner.masks.items():
        assert not (resumed.masks[name] & ~mask & (model.get_parameter(name) == 0)).any()


def test_state_survives(model):
    pruner = build(model, "unstructured")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    pruner.prune_to(0.5, optimizer)
    train_step(model, optimizer, 0)
    pruner.after_step()
    other = build(copy.deepcopy(model), "unstructured")
    other.load_state(copy.deepcopy(pruner.state()))
    other.prune_to(0.7)
    pruner.prune_to(0.7)
    for name, mask in pruner.masks.items():
        assert torch.equal(mask, other.masks[name])


def test_out_of_reach_names_what_stops_it(model):
    with pytest.raises(InputError, match=r"2:4 cannot reach sparsity 0.9.*the most is 0.4"):
        build(model, "2:4").check(0.9)
    pruner = build(model, "block:8")
    with pytest.raises(InputError, match="the most is"):
        pruner.check(0.999)
    pruner.prune_to(int(pruner.max_sparsity * 1e4) / 1e4)


@pytest.mark.parametrize(
    ("cut", "says"),
    [
        (Cut("blocks"), "no pattern 'blocks'"),
        (Cut("unstructured", exclude=["attention_layer"]), "no module is called 'attention_layer'"),
        (Cut("unstructured", mix={"ffn": "channel"}), "no module is called 'ffn'"),
        (Cut("layers", exclude=["front"]), "whole model"),
        (Cut("block:9"), "do not divide"),
        (Cut("unstructured", exclude=["encoder", "predictor", "joiner"]), "nothing is left"),
    ],
)
def test_cuts_that_make_no_sense(conformer, cut, says):
    with pytest.raises(InputError, match=says):
        build_pruner(conformer, conformer.config, cut)


def test_excluded_modules_stay_whole(conformer):
    cut = Cut("unstructured", exclude=["front", "joiner"])
    pruner = build_pruner(conformer, conformer.config, cut)
    pruner.prune_to(0.6)
    assert not any("front" in name or "joiner" in name for name in pruner.masks)
    assert all(conformer.get_parameter(n).all() for n in ("joiner.output.weight",))


def test_channels_of_excluded_modules_stay(conformer):
    before = conformer.config
    pruner = build_pruner(conformer, before, Cut(exclude=["attention"]))
    pruner.prune_to(0.2)
    after = conformer.config.encoder
    assert after.width == before.encoder.width  # attention reads it
    assert after.layers[0].head_dim == before.encoder.layers[0].head_dim
    assert after.layers[0].feed_forward_in < before.encoder.layers[0].feed_forward_in


def test_mixed_patterns_meet_one_budget(conformer):
    dense = conformer.num_parameters
    cut = Cut("unstructured", mix={"feed_forward": "channel", "attention": "block:16"})
    pruner = build_pruner(conformer, conformer.config, cut)
    assert isinstance(pruner, MixedPruner)
    pruner.check(0.7)
    optimizer = torch.optim.AdamW(conformer.parameters(), lr=0.01)
    for sparsity in (0.3, 0.7):
        pruner.prune_to(sparsity, optimizer)
        train_step(conformer, optimizer, 0)
        pruner.after_step()
        assert sparsity <= 1 - conformer.num_kept / dense < sparsity + 0.03
    config = conformer.config
    assert config.encoder.layers[0].feed_forward_in < 80
    assert config.encoder.layers[0].head_dim == 16
    assert config.sparse["encoder.layers.0.attention.query"] == "block:16"
    assert config.sparse["encoder.layers.0.convolution.gate"] == "unstructured"
    assert not any("feed_forward" in name for name in config.sparse)
