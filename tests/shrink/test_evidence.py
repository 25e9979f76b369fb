"""Evidence is what slow twins compute, survives a kill, and lets a training prune by it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from compress.distill.view import task_loss, view_batch
from compress.models.transducer import Transducer
from compress.shrink.channel import ChannelPruner
from compress.shrink.evidence import FRAMES_APART, Evidence
from compress.shrink.groups import Axis
from compress.shrink.layers import keep_layers
from compress.shrink.scores import SCORES, score_units, score_weights
from compress.trainer import TrainSettings, run_step, train
from tests.shrink.random_batches import RandomBatches, random_batch

CLOSE = {"atol": 1e-6, "rtol": 1e-4}


@dataclass
class PrunedStage:
    """A student pruned in steps 2 and 5 by what the steps before showed."""

    model: Transducer
    score: str
    evidence: Evidence = field(init=False)
    dies_at: int | None = None

    def __post_init__(self):
        self.dense = self.model.config
        self.evidence = Evidence(self.model, self.score)
        self.seen = []

    def loss(self, batch, step):
        if step == self.dies_at:
            raise SystemExit("killed")
        return task_loss(view_batch(self.model, batch), batch), {}

    def after_step(self, step, optimizer):
        if step in (2, 5):
            self.seen.append(not self.evidence.empty)
            pruner = ChannelPruner(
                self.model, self.score, dense=self.dense, evidence=self.evidence, min_width=8
            )
            pruner.prune_to(0.15 * step, optimizer)
            self.evidence.clear()
        return {}

    def state(self):
        config = self.model.config.model_dump()
        return {
            "config": config,
            "weights": self.model.state_dict(),
            "evidence": self.evidence.state(),
        }

    def load_state(self, state):
        self.model = Transducer(type(self.dense).model_validate(state["config"]))
        self.model.load_state_dict(state["weights"])
        self.evidence = Evidence(self.model, self.score)
        self.evidence.load_state(state["evidence"])


@pytest.mark.parametrize("bfloat16", [False, True])
def test_gradients_are_those_of_every_step(model, bfloat16):
    model.train()
    twin = copy.deepcopy(model)
    evidence = Evidence(model, "taylor")
    settings = TrainSettings(3, learning_rate=1e-2, warmup_steps=0, bfloat16=bfloat16)
    stage = PrunedStage(model, "magnitude")
    optimizer = torch.optim.SGD([{"params": model.parameters(), "rate_share": 1.0}], lr=0.0)
    squares, units = {}, {}
    for step in range(2):
        twin.load_state_dict(model.state_dict())
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = task_loss(view_batch(twin, random_batch(step)), random_batch(step))
        names, parameters = zip(*twin.named_parameters(), strict=True)
        for name, w, g in zip(
            names, parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            squares[name] = squares.get(name, 0) + g.square() / 2
            for unit in range(w.shape[-1]):
                change = (w[..., unit] * g[..., unit]).sum().item() ** 2 / 2
                units[name, unit] = units.get((name, unit), 0) + change
        run_step(stage, optimizer, random_batch(step), step, settings)
    for name, parameter in model.named_parameters():
        wanted = squares[name] * parameter.detach().square()
        torch.testing.assert_close(
            score_weights(name, parameter, "taylor", evidence), wanted, **CLOSE
        )
        if parameter.ndim > 1:
            found = evidence.unit_squares(name, parameter.ndim - 1).tolist()
            wanted = [units[name, unit] for unit in range(parameter.shape[-1])]
            assert found == pytest.approx(wanted, rel=1e-3, abs=1e-9)


def test_taylor_by_hand():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 3.0]]))
    evidence = Evidence(layer, "taylor")
    for x in ([[1.0, 2.0]], [[-1.0, 0.0]]):  # the gradient of the output is x
        layer.weight.grad = None
        layer(torch.tensor(x)).sum().backward()
    assert score_weights("weight", layer.weight, "taylor", evidence).tolist() == [[1.0, 18.0]]
    parameters, columns, rows = (
        dict(layer.named_parameters()),
        Axis("weight", 1, 1),
        [Axis("weight", 0, 1)],
    )
    scores = SCORES["taylor"](parameters, [columns], 2, evidence)
    assert scores.tolist() == [1.0, 18.0]
    # Over both columns: (1 + 6)^2 and (-1 + 0)^2, averaged.
    assert SCORES["taylor"](parameters, rows, 1, evidence).tolist() == [25.0]


def test_gates_of_a_cell_change_the_loss_together():
    lstm = nn.LSTM(3, 2)
    evidence = Evidence(lstm, "taylor")
    lstm(torch.randn(5, 4, 3))[0].square().sum().backward()
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
        parameter = lstm.get_parameter(name)
        change = (parameter * parameter.grad).detach().reshape(4, 2, -1).sum((0, 2))
        torch.testing.assert_close(evidence.unit_squares(name, 0), change.square(), **CLOSE)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_gates_of_a_projected_cell():
    lstm = nn.LSTM(3, 4, proj_size=2)
    evidence = Evidence(lstm, "taylor")
    lstm(torch.randn(5, 4, 3))[0].square().sum().backward()
    assert evidence.unit_squares("weight_hr_l0", 0).shape == (2,)
    assert evidence.unit_squares("weight_hr_l0", 1).shape == (4,)
    assert evidence.unit_squares("weight_hh_l0", 0).shape == (4,)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_inputs_are_what_modules_were_given(model, bfloat16):
    """The slow twin keeps every input, and takes their mean square at the end."""
    model.train()
    given = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.LSTM):
            module.register_forward_hook(
                lambda module, inputs, outputs, path=path: given.setdefault(path, []).append(
                    (inputs[0].detach(), outputs)
                )
            )
    evidence = Evidence(model, "activation")
    for step in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            task_loss(view_batch(model, random_batch(step)), random_batch(step))
    for path, calls in given.items():
        module = model.get_submodule(path)
        conv = isinstance(module, nn.Conv1d)
        flat = [(x.mT if conv else x).flatten(0, 1)[::FRAMES_APART].float() for x, _ in calls]
        wanted = torch.cat(flat).square().mean(0)
        leaf = "weight_ih_l0" if isinstance(module, nn.LSTM) else "weight"
        weight = model.get_parameter(f"{path}.{leaf}")
        if conv and module.groups > 1:
            wanted = wanted[:, None, None]
        elif conv:
            wanted = wanted[:, None]
        found = score_weights(f"{path}.{leaf}", weight, "activation", evidence)
        close = {"atol": 1e-3, "rtol": 1e-2} if bfloat16 else CLOSE
        torch.testing.assert_close(found, weight.detach().square() * wanted, **close)
        if isinstance(module, nn.LSTM):
            flat = [out[0].detach().flatten(0, 1)[::FRAMES_APART] for _, out in calls]
            found = evidence.weight_factors(f"{path}.weight_hh_l0")[0]
            torch.testing.assert_close(found, torch.cat(flat).float().square().mean(0), **close)


def test_joint_inputs_are_close_to_the_lattice(model):
    """The diagonal against every node (t, u) of the lattice."""
    evidence = Evidence(model.train(), "activation")
    batch = random_batch(0)
    view = view_batch(model, batch)
    task_loss(view, batch)
    nodes = torch.tanh(view.encoded[:, :, None] + view.predicted[:, None]).detach().square()
    num_frames, num_rows = nodes.shape[1:3]
    diagonal = [nodes[:, t, t * num_rows // num_frames] for t in range(num_frames)]
    wanted = torch.stack(diagonal, 1).flatten(0, 1)[::FRAMES_APART].mean(0)
    found = evidence.weight_factors("joiner.output.weight")[0]
    torch.testing.assert_close(found, wanted, **CLOSE)
    assert torch.corrcoef(torch.stack([nodes.mean((0, 1, 2)), found]))[0, 1] > 0.8


def test_a_unit_counts_by_the_columns_that_read_it():
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False))
    evidence = Evidence(model, "activation")
    x = torch.tensor([[1.0, 2.0]])
    hidden = model[0](x)
    model(x)
    axes = [Axis("0.weight", 0, 1), Axis("1.weight", 1, 1)]
    found = SCORES["activation"](dict(model.named_parameters()), axes, 3, evidence)
    wanted = (model[1].weight.square().sum(0) * hidden[0].square()).detach()
    torch.testing.assert_close(found, wanted)
    rows = SCORES["activation"](dict(model.named_parameters()), axes[:1], 3, evidence)
    torch.testing.assert_close(rows, (model[0].weight * x).square().sum(1).detach())


def test_measuring_leaves_no_trace(model):
    evidence = Evidence(model.eval(), "activation")
    task_loss(view_batch(model, random_batch(0)), random_batch(0))
    assert evidence.empty
    evidence.close()
    task_loss(view_batch(model.train(), random_batch(0)), random_batch(0))
    assert evidence.empty


@pytest.mark.parametrize("score", ["taylor", "activation"])
def test_without_steps_every_score_is_magnitude(model, score):
    evidence = Evidence(model, score)
    group = ChannelPruner(model).groups[0]
    parameters = dict(model.named_parameters())
    found = score_units(parameters, group.axes, group.width, score, evidence)
    assert torch.equal(found, score_units(parameters, group.axes, group.width, "magnitude"))
    weight = model.joiner.output.weight
    assert torch.equal(
        score_weights("joiner.output.weight", weight, score, evidence), weight.square()
    )


def test_a_copied_pruner_takes_its_evidence_along(model):
    """A pruner that is tried on a copy leaves the model and its evidence alone."""
    evidence = Evidence(model.train(), "activation")
    task_loss(view_batch(model, random_batch(0)), random_batch(0))
    before, config = evidence.state(), model.config
    trial = copy.deepcopy(ChannelPruner(model, "activation", evidence=evidence))
    trial.prune_to(0.4)
    trial.evidence.clear()
    assert model.config == config
    assert evidence.state().keys() == before.keys()
    assert not evidence.empty
    ChannelPruner(model, "activation", evidence=evidence).prune_to(0.4)
    wanted = trial.model.state_dict()
    assert all(torch.equal(wanted[key], value) for key, value in model.state_dict().items())


def test_dropped_layers_do_not_stop_a_resumed_run(conformer):
    """A hook keeps the name its layer had; a layer of that name may be gone on the next start."""
    evidence = Evidence(conformer.train(), "taylor")
    keep_layers(conformer, [1])
    evidence.clear()
    task_loss(view_batch(conformer, random_batch(0)), random_batch(0)).backward()
    assert evidence.knows("encoder.layers.1.norm.weight")
    resumed = Evidence(Transducer(conformer.config), "taylor")
    resumed.load_state(evidence.state())
    assert not resumed.knows("encoder.layers.1.norm.weight")
    assert resumed.knows("joiner.output.weight")


def test_evidence_is_of_one_score(model):
    evidence = Evidence(model.train(), "taylor", weights=False)
    task_loss(view_batch(model, random_batch(0)), random_batch(0)).backward()
    weight = model.joiner.output.weight
    with pytest.raises(AssertionError, match="units alone"):
        score_weights("joiner.output.weight", weight, "taylor", evidence)
    with pytest.raises(AssertionError, match="evidence is for taylor"):
        score_weights("joiner.output.weight", weight, "activation", evidence)


@pytest.mark.parametrize("score", sorted(SCORES))
def test_a_run_prunes_by_what_it_saw_and_the_same_after_a_kill(model, score, tmp_path):
    """Gradients are zeroed before `after_step`: only hooks can have seen them."""
    settings = TrainSettings(7, warmup_steps=1, log_every=7, checkpoint_every=2, bfloat16=False)
    whole = PrunedStage(copy.deepcopy(model), score)
    train(whole, RandomBatches(), settings, tmp_path / "whole", score)
    assert whole.seen == [score != "magnitude"] * 2
    killed = PrunedStage(copy.deepcopy(model), score, dies_at=5)  # one step after a checkpoint
    with pytest.raises(SystemExit):
        train(killed, RandomBatches(), settings, tmp_path / "killed", score)
    again = PrunedStage(copy.deepcopy(model), score)
    train(again, RandomBatches(), settings, tmp_path / "killed", score, resume=True)
    assert again.model.config == whole.model.config != model.config
    wanted = whole.model.state_dict()
    assert all(torch.equal(wanted[key], value) for key, value in again.model.state_dict().items())
