"""The training loop on a toy: its rate, its log, resuming, what stops it."""

from __future__ import annotations

import itertools
import json
import signal
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from compress import trainer
from compress.checkpoint import load_state
from compress.trainer import TrainSettings, build_optimizer, rate_at, read_log, train
from streaming.errors import InputError

SETTINGS = TrainSettings(
    steps=12, learning_rate=0.1, warmup_steps=2, log_every=2, checkpoint_every=4, bfloat16=False
)


class Toy:
    """Learns to answer 1; its noise comes from torch's generator, as dropout does."""

    def __init__(self, at_step=None):
        torch.manual_seed(7)
        self.model = nn.Linear(3, 1)
        self.at_step = at_step or {}
        self.steps = []

    def loss(self, batch, step):
        self.steps.append(step)
        error = self.model(batch.inputs + 0.1 * torch.randn(4, 3)) - 1
        loss = self.at_step[step](error) if step in self.at_step else error.square().mean()
        return loss, {"error": error.abs().mean().item()}

    def after_step(self, step, optimizer):
        return {"sparsity": 0.5}

    def state(self):
        return self.model.state_dict()

    def load_state(self, state):
        self.model.load_state_dict(state)


class ToySampler:
    """Batch number n holds n in every place."""

    def from_step(self, step):
        for number in itertools.count(step):
            rows = [SimpleNamespace(id=f"utterance-{number}-{index}") for index in range(4)]
            yield SimpleNamespace(rows=rows, inputs=torch.full((4, 3), number / 10))


def run(toy, folder, resume=False):
    train(toy, ToySampler(), SETTINGS, folder, "toy", resume)
    return toy


def stop_here(error):
    signal.raise_signal(signal.SIGINT)
    return error.square().mean()


def die(error):
    raise SystemExit("killed")


def log_without_seconds(folder):
    return [{**row, "seconds": 0} for row in read_log(folder / "log.jsonl")]


def same_weights(one, other):
    return all(map(torch.equal, one.model.parameters(), other.model.parameters()))


def test_rate_rises_and_falls():
    settings = TrainSettings(
        steps=100, learning_rate=1.0, warmup_steps=10, decay_from=0.5, final_rate_share=0.1
    )
    rates = [rate_at(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:51] == [1.0] * 42
    assert rates[75] == pytest.approx(0.55)  # half of the cosine: half way from 1 to 0.1
    assert rates[100] == pytest.approx(0.1)
    assert all(before > after for before, after in itertools.pairwise(rates[50:]))


def test_rate_without_warmup_or_fall():
    settings = TrainSettings(steps=5, learning_rate=1.0, warmup_steps=0, decay_from=1.0)
    assert [rate_at(step, settings) for step in range(5)] == [1.0] * 5


def test_matrices_decay_and_vectors_do_not():
    decaying, still = build_optimizer(nn.Linear(3, 2), TrainSettings(steps=1)).param_groups
    assert [p.ndim for p in decaying["params"]] == [2]
    assert [p.ndim for p in still["params"]] == [1]
    assert decaying["weight_decay"] > 0 == still["weight_decay"]


def test_a_module_may_have_a_share_of_the_rate():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[1].rate_share = 0.1
    groups = build_optimizer(model, TrainSettings(steps=1)).param_groups
    shares = {id(p): group["rate_share"] for group in groups for p in group["params"]}
    assert [shares[id(p)] for p in model.parameters()] == [1.0, 1.0, 0.1, 0.1]


def test_it_learns_and_logs(tmp_path):
    toy = run(Toy(), tmp_path)
    rows = read_log(tmp_path / "log.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[0].keys() == {"step", "seconds", "loss", "error", "norm", "rate", "sparsity"}
    assert load_state(tmp_path / "checkpoint.pt")["step"] == 12
    assert not toy.model.training


@pytest.mark.parametrize("step", [4, 6, 11])
def test_killed_and_resumed_is_the_same(tmp_path, step):
    whole = run(Toy(), tmp_path / "whole")
    with pytest.raises(SystemExit):
        run(Toy({step: die}), tmp_path / "killed")
    resumed = run(Toy(), tmp_path / "killed", resume=True)
    assert resumed.steps == list(range(step // 4 * 4, 12))
    assert same_weights(whole, resumed)
    assert log_without_seconds(tmp_path / "whole") == log_without_seconds(tmp_path / "killed")


def test_interruption_ends_the_step_and_saves(tmp_path):
    whole = run(Toy(), tmp_path / "whole")
    handler = signal.getsignal(signal.SIGINT)
    interrupted = Toy({6: stop_here})
    with pytest.raises(KeyboardInterrupt):
        run(interrupted, tmp_path / "stopped")
    assert signal.getsignal(signal.SIGINT) is handler
    assert interrupted.steps[-1] == 6
    assert load_state(tmp_path / "stopped" / "checkpoint.pt")["step"] == 7
    resumed = run(Toy(), tmp_path / "stopped", resume=True)
    assert resumed.steps == [7, 8, 9, 10, 11]
    assert same_weights(whole, resumed)


def test_second_interruption_does_not_wait(tmp_path):
    def twice(error):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one went by")

    with pytest.raises(KeyboardInterrupt):
        run(Toy({6: twice}), tmp_path)
    assert load_state(tmp_path / "checkpoint.pt")["step"] == 4


def test_finished_training_is_not_repeated(tmp_path):
    run(Toy(), tmp_path)
    assert run(Toy(), tmp_path, resume=True).steps == []


def test_without_resume_it_starts_again(tmp_path):
    run(Toy(), tmp_path)
    assert run(Toy(), tmp_path).steps == list(range(12))
    assert len(read_log(tmp_path / "log.jsonl")) == 6


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("loss", lambda error: error.sum() * float("nan")),
        # sqrt at 0: the value is 0, its slope infinite
        ("gradient", lambda error: (error - error.detach()).abs().sum().sqrt()),
    ],
)
def test_divergence_names_the_utterances_and_keeps_the_checkpoint(tmp_path, name, spoil):
    toy = Toy({9: spoil})
    with pytest.raises(InputError, match=rf"the {name} is \S+ at step 9 .*utterance-9-0") as caught:
        run(toy, tmp_path)
    assert "--resume" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load_state(tmp_path / "checkpoint.pt")["step"] == 8
    assert all(parameter.isfinite().all() for parameter in toy.model.parameters())


def test_cut_last_line_of_a_log_is_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    assert read_log(path) == []
    path.write_text('{"step": 2, "loss": 1.5}\n{"step": 4, "lo')
    assert read_log(path) == [{"step": 2, "loss": 1.5}]


def test_log_lines_after_a_resumed_step_are_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (2, 4, 6, 8)))
    trainer.Log(path, 4).write({"step": 5})
    assert [row["step"] for row in read_log(path)] == [2, 4, 5]
