"""The LSTM's loop: what a batch holds, learning, being killed, Ctrl-C, divergence."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch

from compress.checkpoint import load_state
from compress.lm import training
from compress.lm.config import LstmConfig
from compress.lm.corpus import RECORD, Sentences
from compress.lm.lstm import LstmNetwork
from compress.lm.training import NO_EVENT, SentenceSampler, train_network
from compress.trainer import TrainSettings, read_log
from streaming.errors import InputError
from tests.lm.tiny_models import VOCAB_SIZE, random_sentences, stream

SETTINGS = TrainSettings(
    steps=12, learning_rate=0.02, warmup_steps=2, log_every=2, checkpoint_every=4
)


def in_memory(sentences):
    ends = np.cumsum([len(sentence) + 1 for sentence in sentences])
    records = np.array([(end, 1, 0) for end in ends], RECORD)
    return Sentences(stream(sentences), records)


@pytest.fixture
def sampler():
    return SentenceSampler(in_memory(random_sentences(40)), seed=3, batch_sentences=8)


def build():
    torch.manual_seed(0)
    return LstmNetwork(LstmConfig(vocab_size=VOCAB_SIZE, width=8, dropout=0.1))


def run(sampler, folder, resume=False, settings=SETTINGS):
    folder.mkdir(exist_ok=True)
    network = build()
    train_network(network, sampler, settings, folder, resume)
    return network


def same_weights(one, other):
    return all(map(torch.equal, one.parameters(), other.parameters()))


def stop_at(monkeypatch, step, action):
    original = training.run_step

    def run_step(network, optimizer, batch, number, settings):
        if number == step:
            action()
        return original(network, optimizer, batch, number, settings)

    monkeypatch.setattr(training, "run_step", run_step)


def die():
    raise SystemExit("killed")


def test_a_batch_is_sentences_and_what_follows():
    sampler = SentenceSampler(in_memory([[2, 3, 4], [5]]), seed=0, batch_sentences=30)
    inputs, events = sampler.batch(0)
    rows = {
        (tuple(row), tuple(after))
        for row, after in zip(inputs.tolist(), events.tolist(), strict=True)
    }
    pad = NO_EVENT
    assert rows == {((0, 2, 3, 4), (2, 3, 4, 0)), ((0, 5, 0, 0), (5, 0, pad, pad))}


def test_of_a_long_sentence_a_window():
    tokens = [2, 3, 4, 5] * 30
    sampler = SentenceSampler(in_memory([tokens]), seed=0, batch_sentences=60, max_tokens=7)
    inputs, events = sampler.batch(0)
    assert inputs.shape == (60, 7)
    assert torch.equal(inputs[:, 1:], events[:, :-1])
    assert len({tuple(row) for row in inputs.tolist()}) > 3
    whole = [0, *tokens, 0]
    windows = {tuple(whole[start : start + 8]) for start in range(len(whole) - 7)}
    found = torch.cat([inputs[:, :1], events], dim=1).tolist()
    assert {tuple(row) for row in found} <= windows


def test_a_step_draws_by_its_number(sampler):
    assert torch.equal(sampler.batch(5)[0], sampler.batch(5)[0])
    first, second = sampler.batch(5)[0], sampler.batch(6)[0]
    assert first.shape != second.shape or not torch.equal(first, second)


def test_it_learns_and_logs(tmp_path):
    sampler = SentenceSampler(in_memory([[2, 3, 4], [5, 2]]), seed=0, batch_sentences=8)
    settings = TrainSettings(steps=60, learning_rate=0.02, warmup_steps=5, log_every=20)
    run(sampler, tmp_path, settings=settings)
    rows = read_log(tmp_path / "log.jsonl")
    assert [row["step"] for row in rows] == [20, 40, 60]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]


def test_killed_and_resumed_is_the_same(sampler, tmp_path, monkeypatch):
    whole = run(sampler, tmp_path / "whole")
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        stop_at(patched, 6, die)
        run(sampler, tmp_path / "killed")
    assert load_state(tmp_path / "killed" / "checkpoint.pt")["step"] == 4
    assert same_weights(run(sampler, tmp_path / "killed", resume=True), whole)
    assert len(read_log(tmp_path / "killed" / "log.jsonl")) == 6


def test_interruption_ends_the_step_and_saves(sampler, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stop_at(patched, 6, lambda: signal.raise_signal(signal.SIGINT))
        run(sampler, tmp_path / "stopped")
    assert load_state(tmp_path / "stopped" / "checkpoint.pt")["step"] == 7
    resumed = run(sampler, tmp_path / "stopped", resume=True)
    assert same_weights(resumed, run(sampler, tmp_path / "whole"))


def test_divergence_keeps_the_checkpoint(sampler, tmp_path, monkeypatch):
    original = LstmNetwork.forward
    calls = []

    def forward(network, tokens):
        calls.append(1)
        return original(network, tokens) * (torch.nan if len(calls) == 10 else 1)

    monkeypatch.setattr(LstmNetwork, "forward", forward)
    with pytest.raises(InputError, match=r"the loss is nan at step 9.*--width"):
        run(sampler, tmp_path)
    state = load_state(tmp_path / "checkpoint.pt")
    assert state["step"] == 8
    assert all(part.isfinite().all() for part in state["network"].values())


@pytest.mark.parametrize("layers", [1, 2])
def test_no_event_is_the_unknown_token(layers):
    torch.manual_seed(0)
    network = LstmNetwork(LstmConfig(vocab_size=VOCAB_SIZE, width=8, layers=layers))
    events = network(torch.tensor([[0, 2, 3]])).exp()
    assert events[..., 1].max() == 0
    torch.testing.assert_close(events.sum(-1), torch.ones(1, 3))
