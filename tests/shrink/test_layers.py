"""Dropping encoder layers: the model without them, nothing else changed, resumable."""

from __future__ import annotations

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from compress.models.config import LstmConfig, TransducerConfig
from compress.models.transducer import Transducer
from compress.shrink.influence import measure_influence
from compress.shrink.layers import LayerPruner, choose_blocks, every_second, rename_layers
from compress.trainer import TrainSettings, build_optimizer
from export.bundle import write_bundle
from streaming.errors import InputError
from streaming.session import open_session
from tests.shrink.conftest import CONFIGS
from tests.tiny_teacher import build_teacher

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
SETTINGS = TrainSettings(1)


def build_lstm(hidden=(40, 56, 56, 40), width=40):
    torch.manual_seed(0)
    encoder = LstmConfig(
        subsampling_width=32, width=width, joint_width=48, hidden=list(hidden), chunk_frames=8
    )
    return Transducer(CONFIGS["lstm"].model_copy(update={"encoder": encoder})).eval()


def build(kind):
    return build_lstm() if kind == "lstm" else build_teacher(num_layers=4)


def step(model, optimizer=None, seed=0):
    """A training step on noise."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 24, 80, generator=generator) * 4 - 6
    labels = torch.randint(1, 20, (2, 3), generator=generator)
    model.train()
    encoded, _ = model.encoder(features, torch.tensor([24, 20]))
    predicted = model.predictor.forward_sequence(labels).mean(1, keepdim=True)
    model.joiner(encoded, predicted).square().mean().backward()
    if optimizer:
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


class Nothing(nn.Module):
    """What stands where a layer stood: it gives back what it gets."""

    def __init__(self, pair):
        super().__init__()
        self.pair = pair

    def forward(self, x, *_):
        return (x, None) if self.pair else x


def without(model, numbers):
    """The slow twin: all layers in their places, some of them doing nothing."""
    twin = copy.deepcopy(model)
    for number in numbers:
        if hasattr(twin.encoder, "norms"):
            twin.encoder.norms[number] = nn.Identity()
            twin.encoder.layers[number] = Nothing(pair=True)
        else:
            twin.encoder.layers[number] = Nothing(pair=False)
    return twin


@pytest.mark.parametrize(("kind", "numbers"), [("conformer", [2, 0, 1]), ("lstm", [2, 0])])
def test_the_others_go_on_as_if_the_dropped_ones_did_nothing(kind, numbers, outputs):
    model = build(kind)
    dense = copy.deepcopy(model)
    pruner = LayerPruner(model)
    for number in numbers:
        before = sum(p.numel() for p in dense.encoder.layers[number].parameters())
        for block in pruner.blocks:
            block.influence = torch.tensor(float(block.number != number))
        pruner.prune_to(pruner.sparsity + before / 2 / pruner.num_parameters_dense)
    assert torch.equal(outputs(model), outputs(without(dense, numbers)))
    assert len(model.encoder.layers) == 4 - len(numbers)


@pytest.mark.parametrize("kind", ["conformer", "lstm"])
def test_configuration_and_weights_rebuild_the_model(kind, outputs):
    model = build(kind)
    LayerPruner(model).prune_to(0.2)
    text = model.config.model_dump_json()
    rebuilt = Transducer(TransducerConfig.model_validate_json(text)).eval()
    rebuilt.load_state_dict(model.state_dict())
    assert repr(rebuilt) == repr(model)
    assert torch.equal(outputs(rebuilt), outputs(model))


@pytest.mark.parametrize("kind", ["conformer", "lstm"])
def test_chunks_equal_whole(kind):
    model = build(kind)
    LayerPruner(model).prune_to(0.2)
    features = torch.randn(2, 64, 80) * 4 - 6
    with torch.no_grad():
        whole, _ = model.encoder(features, torch.tensor([64, 64]))
        state, parts = model.encoder.initial_state(2), []
        for chunk in features.split(model.encoder.chunk_frames, dim=1):
            part, state = model.encoder.streaming_forward(chunk, state)
            parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **CLOSE)


def test_a_bundle_of_what_is_left(conformer, tmp_path):
    """Exported with the pruner still listening; the state has one layer's keys and values."""
    step(conformer)
    LayerPruner(conformer).prune_to(0.2)
    assert len(conformer.encoder.layers) == 1
    tokens = ["<blk>", *(f"t{number}" for number in range(1, 23))]
    parts = conformer.encoder, conformer.predictor, conformer.joiner
    session = open_session(
        write_bundle(tmp_path / "bundle", *parts, tokens, quantize="none"), "fp32"
    )
    features, state = torch.randn(1, 24, 80) * 4 - 6, conformer.encoder.initial_state(1)
    exported = session.initial_state(1)
    for chunk in features.split(8, dim=1):
        with torch.no_grad():
            expected, state = conformer.encoder.streaming_forward(chunk, state)
        found, exported = session.encode(chunk.numpy(), exported)
        torch.testing.assert_close(torch.from_numpy(found), expected, **CLOSE)


@pytest.mark.parametrize("kind", ["conformer", "lstm"])
def test_a_ramp_keeps_as_many_layers_as_the_budget_allows(kind):
    model = build(kind)
    pruner = LayerPruner(model)
    dense, most = model.num_parameters, pruner.max_sparsity
    assert pruner.num_parameters_dense == dense
    sizes = {block.number: block.size for block in pruner.blocks if block.droppable}
    for done in range(21):
        wanted = most * done / 20
        pruner.prune_to(wanted)
        budget = (1 - wanted) * dense + 1e-6
        assert model.num_parameters <= budget
        fewest = min(
            len(gone)
            for count in range(len(sizes) + 1)
            for gone in itertools.combinations(sizes.values(), count)
            if dense - sum(gone) <= budget
        )
        assert len(model.encoder.layers) == 4 - fewest
        assert pruner.sparsity == pytest.approx(1 - model.num_parameters / dense)
    assert pruner.max_sparsity == pytest.approx(most) == pytest.approx(pruner.sparsity)
    assert len(model.encoder.layers) == (1 if kind == "conformer" else 2)


def test_influence_by_hand():
    x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    assert measure_influence(x, 3 * x).item() == pytest.approx(0)
    assert measure_influence(x, -x).item() == pytest.approx(2)
    assert measure_influence(x, x.flip(-1)).item() == pytest.approx(1)


def test_the_layer_that_changes_least_goes_first():
    """Layer 2 is made to add nearly nothing: its outer norm alone is left, as of layer 1 before."""
    model = build_teacher(num_layers=4)
    pruner = LayerPruner(model)
    with torch.no_grad():
        for name in ("feed_forward_in.down", "feed_forward_out.down", "attention.out"):
            model.encoder.layers[2].get_submodule(name).weight.mul_(0.01)
        model.encoder.layers[2].convolution.out.weight.mul_(0.01)
    step(model)
    influence = [float(block.influence) for block in pruner.blocks]
    assert min(influence) == influence[2] < 0.5 * sorted(influence)[1]
    pruner.prune_to(0.05)
    assert [block.number for block in pruner.blocks] == [0, 1, 3]


def test_influence_is_an_average_over_training_steps_only():
    model = build_teacher(num_layers=2)
    pruner = LayerPruner(model)
    seen = []
    with torch.no_grad():
        model.encoder(torch.randn(1, 32, 80), torch.tensor([32]))
    assert pruner.blocks[0].influence is None
    for seed in (1, 2):
        fresh = copy.deepcopy(model)  # its steps are not ours, though hooks are copied
        alone = LayerPruner(fresh)
        step(fresh, seed=seed)
        seen.append(float(alone.blocks[1].influence))
        step(model, seed=seed)
    assert seen[0] != seen[1]
    expected = 0.95 * seen[0] + 0.05 * seen[1]
    assert float(pruner.blocks[1].influence) == pytest.approx(expected, abs=1e-6)


def test_without_data_every_second_layer_goes():
    assert sorted(range(6), key=lambda n: every_second(n, 6)) == [3, 1, 5, 2, 4, 0]
    model = build_teacher(num_layers=6)
    pruner = LayerPruner(model)
    left = []
    for count in range(1, 6):
        pruner.prune_to(count * pruner.blocks[0].size / pruner.num_parameters_dense)
        left.append([block.number for block in pruner.blocks])
    assert left == [[0, 1, 2, 4, 5], [0, 2, 4, 5], [0, 2, 4], [0, 4], [0]]


def test_every_second_can_be_asked_for():
    model = build_teacher(num_layers=4)
    pruner = LayerPruner(model, order="every-second")
    step(model)
    assert {block.influence for block in pruner.blocks} == {None}
    with pytest.raises(InputError, match="choose one of influence, every-second"):
        LayerPruner(model, order="influense")


def test_fewest_layers_of_unequal_sizes():
    """Sizes 3, 5, 4 by rank: what is missed least goes if no further layer has to go for it."""
    blocks = [SimpleNamespace(size=size) for size in (3, 5, 4)]

    def sizes(excess):
        return [block.size for block in choose_blocks(blocks, excess)]

    assert sizes(0) == []
    assert sizes(3) == [3]
    assert sizes(4) == [5]
    assert sizes(8) == [3, 5]
    assert sizes(9) == [5, 4]
    assert sizes(12) == [3, 5, 4]


@pytest.mark.parametrize("kind", ["conformer", "lstm"])
def test_the_optimizer_follows_and_a_resumed_one_loads(kind):
    model = build(kind)
    optimizer = build_optimizer(model, SETTINGS)
    pruner = LayerPruner(model)
    step(model, optimizer)
    moments = {id(p): optimizer.state[p]["exp_avg"].clone() for p in model.parameters()}
    gone = {id(p) for p in model.parameters()}
    pruner.prune_to(0.2, optimizer)
    gone -= {id(p) for p in model.parameters()}
    assert gone
    fresh = build_optimizer(model, SETTINGS)
    for old, new in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        assert [id(p) for p in old["params"]] == [id(p) for p in new["params"]]
    assert {id(p) for p in optimizer.state} == {id(p) for p in model.parameters()}
    fresh.load_state_dict(optimizer.state_dict())
    for parameter in model.parameters():
        assert torch.equal(optimizer.state[parameter]["exp_avg"], moments[id(parameter)])
        assert torch.equal(fresh.state[parameter]["exp_avg"], moments[id(parameter)])
    step(model, optimizer)


@pytest.mark.parametrize("killed_at", [1, 3])
def test_a_killed_and_resumed_run_drops_the_same_layers(killed_at, tmp_path):
    dense = build_teacher(num_layers=4)
    wanted = [0.0, 0.05, 0.05, 0.3, 0.5]

    def run(model, pruner, optimizer, numbers):
        for number in numbers:
            step(model, optimizer, seed=number)
            pruner.prune_to(wanted[number], optimizer)

    whole = copy.deepcopy(dense)
    pruner = LayerPruner(whole)
    run(whole, pruner, build_optimizer(whole, SETTINGS), range(5))

    first = copy.deepcopy(dense)
    pruner, optimizer = LayerPruner(first), build_optimizer(first, SETTINGS)
    run(first, pruner, optimizer, range(killed_at))
    state = {"pruner": pruner.state(), "optimizer": optimizer.state_dict()}
    torch.save(state | {"weights": first.state_dict()}, tmp_path / "state.pt")

    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = Transducer(first.config)
    again.load_state_dict(state["weights"])
    pruner, optimizer = LayerPruner(again, dense.config), build_optimizer(again, SETTINGS)
    pruner.load_state(state["pruner"])
    optimizer.load_state_dict(state["optimizer"])
    run(again, pruner, optimizer, range(killed_at, 5))
    assert len(again.encoder.layers) < 4
    assert again.config == whole.config
    found = again.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in whole.state_dict().items())


def test_names_of_sparse_layers_follow():
    sparse = {
        "encoder.layers.0.attention.out": "2:4",
        "encoder.layers.1.attention.out": "block:8",
        "encoder.layers.3.attention.out": "unstructured",
        "encoder.project": "unstructured",
    }
    assert rename_layers(sparse, [0, 3]) == {
        "encoder.layers.0.attention.out": "2:4",
        "encoder.layers.1.attention.out": "unstructured",
        "encoder.project": "unstructured",
    }


def test_what_cannot_be_reached_is_named():
    conformer = LayerPruner(build_teacher(num_layers=3))
    most = f"{int(conformer.max_sparsity * 1e4) / 1e4:g}"
    with pytest.raises(InputError, match=rf"1 of 3 encoder layers must stay.* most is {most}: ask"):
        conformer.prune_to(0.95)
    assert len(conformer.model.encoder.layers) == 3
    with pytest.raises(InputError, match="2 of 4 encoder layers must stay"):
        LayerPruner(build_lstm()).check(0.9)
    narrowing = LayerPruner(build_lstm((56, 40, 32)))
    assert narrowing.max_sparsity == 0
    narrowing.check(0)
    with pytest.raises(InputError, match=r"no layer of this encoder.*the most is 0"):
        narrowing.check(0.1)
    with pytest.raises(InputError, match=r"did you mean 0\.5"):
        conformer.check(50)
