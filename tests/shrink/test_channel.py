"""A pruned model is the dense model with the removed units zeroed, and still an ordinary model."""

from __future__ import annotations

import copy

import pytest
import torch

from compress.models.config import (
    StatelessPredictorConfig,
    TransducerConfig,
    uniform_conformer,
)
from compress.models.transducer import Transducer
from compress.shrink.channel import ChannelPruner, carry_optimizer_state, removed_units
from compress.shrink.evidence import Evidence
from compress.shrink.groups import find_groups
from compress.shrink.heads import best_partners
from compress.shrink.schedule import sparsity_at
from compress.shrink.scores import SCORES
from streaming.errors import InputError
from tests.shrink.conftest import CONFIGS, randomise

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
WEIGHTS = ("weight", "bias")
GATED_CONVOLUTION = ("convolution.value", "gate", "depthwise", "inner_norm")


def demo_config():
    return TransducerConfig(
        vocab_size=500,
        encoder=uniform_conformer(
            num_layers=6, width=192, num_heads=4, feed_forward=576, joint_width=192
        ),
        predictor=StatelessPredictorConfig(width=192, joint_width=192),
    )


def halve(width):
    blocks, size = width
    return (max(1, blocks - 1), size // 2)


def test_all_widths_but_vocabulary_mel_bins_and_kernels_are_pruned(model):
    axes = {(a.parameter, a.dim) for group in ChannelPruner(model).groups for a in group.axes}
    fixed = {
        (name, dim): length
        for name, parameter in model.named_parameters()
        for dim, length in enumerate(parameter.shape)
        if (name, dim) not in axes
    }
    assert {length for (name, _), length in fixed.items() if name.startswith("joiner")} == {23}
    assert fixed[("predictor.embedding.weight", 0)] == 23
    assert fixed[("encoder.front.first.weight", 1)] == 80
    assert set(fixed.values()) <= {1, 2, 3, 5, 23, 80}  # groups, context, kernels, V, F


GATED = [(name, 0, 4) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]
MODULES = {  # kind of module -> (model, what makes its units) -> everything that goes with them
    "feed-forward": (
        ("conformer", "encoder.layers.0.feed_forward_in.up"),
        [("up.weight", 0, 1), ("up.bias", 0, 1), ("down.weight", 1, 1)],
    ),
    "attention": (
        ("conformer", "encoder.layers.0.attention.value"),
        [
            *[(f"{name}.{leaf}", 0, 1) for name in ("query", "key", "value") for leaf in WEIGHTS],
            ("out.weight", 1, 1),
        ],
    ),
    "gated linear unit and depthwise convolution": (
        ("conformer", "encoder.layers.0.convolution.depthwise"),
        [
            *[(f"{name}.{leaf}", 0, 1) for name in GATED_CONVOLUTION for leaf in WEIGHTS],
            ("out.weight", 1, 1),
        ],
    ),
    "LSTM layer": (
        ("lstm", "encoder.layers.1"),
        [
            *[(f"layers.1.{name}", dim, copies) for name, dim, copies in GATED],
            ("layers.1.weight_hh_l0", 1, 1),
            *[(f"norms.1.{leaf}", 0, 1) for leaf in WEIGHTS],
            ("project.weight", 1, 1),
        ],
    ),
    "LSTM predictor": (
        ("lstm", "predictor.lstm"),
        [
            *[(f"lstm.{name}", dim, copies) for name, dim, copies in GATED],
            ("lstm.weight_hh_l0", 1, 1),
            ("project.weight", 1, 1),
        ],
    ),
    "embedding": (
        ("lstm", "predictor.embedding"),
        [("embedding.weight", 1, 1), ("lstm.weight_ih_l0", 1, 1)],
    ),
    "stateless predictor": (
        ("conformer", "predictor.embedding"),
        [("embedding.weight", 1, 1), ("positions", 1, 1), ("project.weight", 1, 1)],
    ),
    "joiner": (
        ("conformer", "encoder.project"),
        [
            *[
                (f"{net}.project.{leaf}", 0, 1)
                for net in ("encoder", "predictor")
                for leaf in WEIGHTS
            ],
            ("joiner.output.weight", 1, 1),
        ],
    ),
    "subsampling, inner": (
        ("conformer", "encoder.front.first"),
        [*[(f"front.first.{leaf}", 0, 1) for leaf in WEIGHTS], ("front.second.weight", 1, 1)],
    ),
    "subsampling, outer": (
        ("lstm", "encoder.front.second"),
        [*[(f"front.second.{leaf}", 0, 1) for leaf in WEIGHTS], ("weight_ih_l0", 1, 1)],
    ),
}


@pytest.mark.parametrize("kind", MODULES)
def test_what_lives_and_dies_together(kind):
    (name, maker), wanted = MODULES[kind]
    group = next(group for group in find_groups(CONFIGS[name]) if group.name == maker)
    assert len(group.axes) == len(wanted)
    for suffix, dim, copies in wanted:
        found = [a for a in group.axes if a.parameter.endswith(suffix) and a.dim == dim]
        assert [axis.copies for axis in found] == [copies], suffix


@pytest.mark.parametrize(
    ("encoder", "predictor"), [("conformer", "lstm"), ("lstm", "conformer"), ("full", "conformer")]
)
def test_other_pairs_of_networks(encoder, predictor, outputs, slow_twin):
    """An LSTM predictor behind a Conformer, a stateless one behind LSTMs, and full context."""
    network = CONFIGS["lstm" if encoder == "lstm" else "conformer"].encoder
    if encoder == "full":
        network = network.model_copy(update={"full_context": True})
    behind = CONFIGS[predictor].predictor.model_copy(update={"joint_width": network.joint_width})
    dense = randomise(
        Transducer(TransducerConfig(vocab_size=23, encoder=network, predictor=behind))
    )
    student = copy.deepcopy(dense)
    kept = ChannelPruner(student).prune_to(0.6)
    torch.testing.assert_close(outputs(student), outputs(slow_twin(dense, kept)), **CLOSE)


@pytest.mark.parametrize("heads", [(3, 5), (2, 16), (1, 16), (1, 1), (2, 7)])
def test_heads_are_counted_right(conformer, outputs, slow_twin, heads):
    """Fewer heads, narrower ones, and both: in the weights, the module, the configuration."""
    dense = copy.deepcopy(conformer)
    pruner = ChannelPruner(conformer)
    name = "encoder.layers.1.attention.value"
    widths = {group.name: (group.blocks, group.size) for group in pruner.groups}
    kept = pruner.prune_widths({**widths, name: heads})
    attention = conformer.encoder.layers[1].attention
    assert (attention.num_heads, attention.head_dim) == heads
    layer = conformer.config.encoder.layers[1]
    assert (layer.num_heads, layer.head_dim) == heads
    assert conformer.config.encoder.layers[0].num_heads == 3
    width = heads[0] * heads[1]
    for part in (attention.query, attention.key, attention.value):
        assert part.out_features == width
    assert attention.out.in_features == width
    assert conformer.encoder.initial_state(1)[5].shape[-1] == width
    # Every head that stays kept as many of its own dimensions.
    rows = kept["encoder.layers.1.attention.query.bias"].reshape(heads) // 16
    assert all(len(set(head.tolist())) == 1 for head in rows)
    torch.testing.assert_close(outputs(conformer), outputs(slow_twin(dense, kept)), **CLOSE)


def test_every_group_alone_equals_zeroing_it(model, outputs, slow_twin):
    pruner = ChannelPruner(model)
    dense_widths = {group.name: (group.blocks, group.size) for group in pruner.groups}
    for group in pruner.groups:
        student = copy.deepcopy(model)
        widths = {**dense_widths, group.name: halve(dense_widths[group.name])}
        kept = ChannelPruner(student).prune_widths(widths)
        assert student.num_parameters == pruner.count(widths) < model.num_parameters
        torch.testing.assert_close(outputs(student), outputs(slow_twin(model, kept)), **CLOSE)


@pytest.mark.parametrize("score", sorted(SCORES))
def test_whole_model_equals_zeroing(model, outputs, slow_twin, score):
    dense = copy.deepcopy(model)
    evidence = Evidence(model.train(), score)
    encoded = model.encoder(torch.randn(1, 16, 80), torch.tensor([16]))[0]
    predicted = model.predictor.forward_sequence(torch.ones(1, 3).long())
    model.joiner(encoded, predicted).square().sum().backward()
    model.eval()
    assert evidence.empty == (score == "magnitude")
    kept = ChannelPruner(model, score, evidence=evidence).prune_to(0.6)
    torch.testing.assert_close(outputs(model), outputs(slow_twin(dense, kept)), **CLOSE)


def test_two_steps_equal_zeroing_what_both_removed(model, outputs, slow_twin):
    dense = copy.deepcopy(model)
    pruner = ChannelPruner(model)
    first, second = pruner.prune_to(0.3), pruner.prune_to(0.6)
    kept = {name: first[name].flatten()[second[name]] for name in first}
    torch.testing.assert_close(outputs(model), outputs(slow_twin(dense, kept)), **CLOSE)


def test_configuration_and_weights_rebuild_the_model(model, outputs):
    ChannelPruner(model).prune_to(0.6)
    text = model.config.model_dump_json()
    rebuilt = Transducer(TransducerConfig.model_validate_json(text)).eval()
    rebuilt.load_state_dict(model.state_dict())
    assert repr(rebuilt) == repr(model)
    assert torch.equal(outputs(rebuilt), outputs(model))


def test_chunks_equal_whole_after_pruning(model):
    ChannelPruner(model).prune_to(0.6)
    features = torch.randn(2, 40, 80) * 4 - 6
    with torch.no_grad():
        whole, _ = model.encoder(features, torch.tensor([40, 40]))
        state = model.encoder.initial_state(2)
        parts = []
        for chunk in features.split(8, dim=1):
            part, state = model.encoder.streaming_forward(chunk, state)
            parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **CLOSE)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.35, 0.6, 0.7])
def test_small_model_meets_its_budget(model, sparsity):
    dense = model.num_parameters
    ChannelPruner(model).prune_to(sparsity)
    assert 0.97 * (1 - sparsity) * dense <= model.num_parameters <= (1 - sparsity) * dense


def test_ramp_to_90_percent_keeps_proportions_and_friendly_widths():
    model = Transducer(demo_config())
    dense = model.num_parameters
    pruner = ChannelPruner(model)
    for step in range(6):
        sparsity = sparsity_at(step, 0, 5, 0.9)
        pruner.prune_to(sparsity)
        assert 0.97 * (1 - sparsity) * dense <= model.num_parameters <= (1 - sparsity) * dense
    encoder = model.config.encoder
    assert 48 <= encoder.width <= 80
    for layer in encoder.layers:
        assert 128 <= layer.feed_forward_in <= 256
        assert 32 <= layer.num_heads * layer.head_dim <= 80
        assert layer.head_dim % 4 == 0
        assert layer.convolution % 8 == layer.feed_forward_in % 8 == layer.feed_forward_out % 8 == 0
    assert encoder.width % 8 == encoder.joint_width % 8 == model.config.predictor.width % 8 == 0
    assert model.config.vocab_size == 500
    assert encoder.num_mel_bins == 80


def test_one_shot_has_the_same_layout_as_a_resumed_ramp():
    ramp, one_shot = Transducer(demo_config()), Transducer(demo_config())
    ChannelPruner(ramp).prune_to(0.5)
    ChannelPruner(ramp, dense=demo_config()).prune_to(0.9)
    ChannelPruner(one_shot).prune_to(0.9)
    assert ramp.config == one_shot.config


def test_strong_units_stay(conformer):
    feed_forward = conformer.encoder.layers[1].feed_forward_in
    strong = torch.arange(3, 80, 5)
    with torch.no_grad():
        feed_forward.up.weight[strong] *= 100
    kept = ChannelPruner(conformer).prune_to(0.75)
    assert feed_forward.up.out_features >= len(strong)
    assert set(strong.tolist()) <= set(kept["encoder.layers.1.feed_forward_in.up.bias"].tolist())


def test_values_meet_the_queries_of_their_rank():
    assert best_partners(
        torch.tensor([[1.0, 5.0, 3.0], [3.0, 2.0, 1.0]]),
        torch.tensor([[9.0, 7.0, 8.0], [1.0, 2.0, 3.0]]),
    ).tolist() == [1, 0, 2, 5, 4, 3]


def test_whole_heads_go_first_then_dimensions_of_each():
    scores = torch.tensor([5.0, 1.0, 2.0, 2.0, 9.0, 4.0])
    assert removed_units(scores, old=(3, 2), new=(2, 1)) == [1, 2, 3, 5]
    assert removed_units(scores, old=(3, 2), new=(1, 2)) == [0, 1, 2, 3]


def test_optimizer_moments_follow_by_hand():
    weight = torch.nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.AdamW(weight.parameters())
    weight(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.state[weight.weight]["exp_avg"] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    carry_optimizer_state(optimizer, weight, {"weight": torch.tensor([[1], [3]])})
    assert optimizer.state[weight.weight]["exp_avg"].tolist() == [[2.0], [4.0]]
    assert optimizer.state[weight.weight]["step"].item() == 1


def test_training_goes_on_with_the_same_optimizer(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pruner = ChannelPruner(model)
    held = []  # a loss that outlives the pruning keeps autograd's nodes of the old shapes alive
    for sparsity in (0.0, 0.3, 0.6):
        old = {
            name: optimizer.state[parameter]["exp_avg"].flatten()
            for name, parameter in model.named_parameters()
            if parameter in optimizer.state
        }
        kept = pruner.prune_to(sparsity)
        carry_optimizer_state(optimizer, model, kept)
        for name, parameter in model.named_parameters():
            if name in old:
                state = optimizer.state[parameter]
                assert torch.equal(state["exp_avg"], old[name][kept[name]])
                assert state["exp_avg_sq"].shape == parameter.shape
        encoded = model.encoder(torch.randn(1, 16, 80), torch.tensor([16]))[0]
        labels = torch.randint(1, 23, (1, 3))
        loss = model.joiner(encoded, model.predictor.forward_sequence(labels)).square().mean()
        held.append(loss)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_mode_and_parameters_stay_the_same_objects(model):
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    model.train()
    ChannelPruner(model).prune_to(0.5)
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
    assert all(module.training for module in model.modules())


def test_unreachable_sparsity_names_the_nearest(model):
    pruner = ChannelPruner(model)
    before = model.config
    with pytest.raises(InputError, match=r"no layout reaches sparsity 0\.999.*use at most that"):
        pruner.prune_to(0.999)
    assert model.config == before
    pruner.prune_to(int(pruner.max_sparsity * 1e4) / 1e4)


@pytest.mark.parametrize("sparsity", [90, 1.0, -1])
def test_sparsity_outside_its_range(conformer, sparsity):
    with pytest.raises(InputError, match=r"in \[0, 1\)"):
        ChannelPruner(conformer).prune_to(sparsity)


def test_wrong_score(conformer):
    with pytest.raises(InputError, match="choose one of magnitude, taylor"):
        ChannelPruner(conformer, "magnitud")
