"""Training with rounding: it learns, pruned weights stay zero, a kill changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compress.checkpoint import load_model, save_model
from compress.distill.lessons import parse_distill
from compress.distill.setup import build_teaching
from compress.distill.teaching import Teaching
from compress.quantize.ranges import InputRanges
from compress.quantize.stage import QuantizeStage
from compress.shrink.candidate import cut_at_once
from compress.shrink.pruner import Cut
from compress.trainer import TrainSettings, build_optimizer, read_log, run_step, train
from tests.tiny_teacher import build_teacher, build_tokenizer

SETTINGS = TrainSettings(
    6, learning_rate=2e-3, warmup_steps=1, log_every=1, checkpoint_every=2, bfloat16=False
)


def build(sampler, pattern="channel", teaching=None):
    student = cut_at_once(build_teacher(), Cut(pattern), 0.4)
    return QuantizeStage(student, teaching or Teaching([], None), sampler)


def test_ten_steps_reduce_the_loss_of_the_rounded_student(sampler, tmp_path):
    model = build_teacher(), build_tokenizer()
    lessons = parse_distill("lattice=1.0")
    teaching = build_teaching(lessons, "none", model, model, sampler, tmp_path)
    stage = build(sampler, teaching=teaching)
    batch = next(sampler.from_step(0))
    settings = replace(SETTINGS, steps=10)
    optimizer = build_optimizer(stage.model, settings)
    rows = [run_step(stage, optimizer, batch, step, settings) for step in range(10)]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert all(row["lattice"] > 0 for row in rows), "the teacher goes on teaching"
    ranges = stage.model.ranges
    assert ranges.low_gains.any()
    assert ranges.high_gains.any()
    assert all(low <= 0 <= high for low, high in ranges.learned().values())


@pytest.mark.parametrize("pattern", ["unstructured", "block:8", "2:4", "channel"])
def test_what_was_pruned_stays_pruned(pattern, sampler, tmp_path):
    stage = build(sampler, pattern)
    student = stage.student
    before = {name: weight == 0 for name, weight in student.named_parameters() if weight.ndim > 1}
    train(stage, sampler, replace(SETTINGS, steps=3), tmp_path / "quantize", "rounding")
    assert bool(student.config.sparse) == (pattern != "channel")
    for name in student.config.sparse:
        zero = before[f"{name}.weight"]
        weight = student.get_submodule(name).weight
        assert zero.any()
        assert torch.equal(weight == 0, zero), name
        assert not weight[zero].signbit().any(), "-0.0 is no zero byte"
        assert not stage.rounded().get_submodule(name).weight[zero].any()
    save_model(student, tmp_path / "model", build_tokenizer(), {})
    loaded, _ = load_model(tmp_path / "model")
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, student.state_dict()[name]), name


def test_a_kill_changes_nothing(sampler, tmp_path):
    whole = build(sampler)
    train(whole, sampler, SETTINGS, tmp_path / "whole", "rounding")
    killed = build(sampler)
    loss = killed.loss

    def die(batch, step):
        if step == 3:
            raise SystemExit("killed")
        return loss(batch, step)

    killed.loss = die
    with pytest.raises(SystemExit):
        train(killed, sampler, SETTINGS, tmp_path / "killed", "rounding", resume=True)
    resumed = build(sampler)
    train(resumed, sampler, SETTINGS, tmp_path / "killed", "rounding", resume=True)
    state = resumed.state()
    assert all(torch.equal(value, state[name]) for name, value in whole.state().items())
    assert resumed.model.ranges.learned() == whole.model.ranges.learned()
    losses = [
        [row["loss"] for row in read_log(tmp_path / f / "log.jsonl")] for f in ("whole", "killed")
    ]
    assert losses[0] == losses[1]


def test_bfloat16_does_not_reach_the_twin(sampler):
    stage, batch = build(sampler), next(sampler.from_step(0))
    plain = stage.loss(batch, 0)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(stage.loss(batch, 0)[0], plain)


def test_data_goes_on_where_the_run_was(sampler):
    late = replace(sampler, first_step=5)
    assert [row.id for row in next(late.from_step(2)).rows] == [
        row.id for row in next(sampler.from_step(7)).rows
    ]


def test_layers_that_read_the_same_share_a_range(sampler):
    ranges = build(sampler).model.ranges
    layer = "encoder.layers.0"
    assert ranges.shared[f"{layer}.attention.key"] == f"{layer}.attention.query"
    assert ranges.shared[f"{layer}.convolution.gate"] == f"{layer}.convolution.value"
    assert f"{layer}.feed_forward_in.down" in ranges.rows
    learned = ranges.learned()
    assert learned[f"{layer}.attention.value"] == learned[f"{layer}.attention.query"]
    assert learned["joiner.output"] == (-1.0, 1.0)


def test_ranges_by_hand():
    """Two layers share -1 .. 3; a gain of ln 2 doubles an end; an end at 0 stays there."""
    ranges = InputRanges({"a": (-1.0, 2.0), "b": (0.5, 3.0), "c": (0.0, 4.0)}, {"b": "a"})
    ranges.low_gains.data += torch.log(torch.tensor(2.0))
    found = ranges.learned()
    assert found["a"] == found["b"] == (-2.0, 3.0)
    assert found["c"] == (0.0, 4.0)
    low, high = ranges("b", 100)
    (low + 2 * high).backward()
    share = (100 * 255) ** -0.5
    assert ranges.low_gains.grad.tolist() == pytest.approx([-2 * share, 0])
    assert ranges.high_gains.grad.tolist() == pytest.approx([6 * share, 0])
