"""Which arithmetic a training takes: by what the device can do, as set, or as it was begun."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compress import precision
from compress.checkpoint import load_state, save_state
from compress.config import OptimiserRecipe, QatRecipe, RunRecipe, read_recipe, validate
from compress.rehearsal import Practice
from compress.trainer import train
from streaming.errors import InputError
from tests.test_trainer import SETTINGS, Toy, ToySampler, die, same_weights

NO_AMX = {"avx512_vnni", "avx512_bf16"}
AMX = NO_AMX | {"amx_tile", "amx_bf16"}
AUTO = replace(SETTINGS, bfloat16="auto")


class Listener(Toy):
    """Notes whether its steps ran under autocast."""

    def __init__(self, at_step=None):
        super().__init__(at_step)
        self.heard = []

    def loss(self, batch, step):
        self.heard.append(torch.is_autocast_enabled("cpu"))
        return super().loss(batch, step)


def pretend(monkeypatch, flags):
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))


def run(folder, settings=AUTO, resume=False, at_step=None):
    toy = Listener(at_step)
    train(toy, ToySampler(), settings, folder, "toy", resume)
    return toy


def kill_at(step, folder, settings=AUTO):
    with pytest.raises(SystemExit):
        run(folder, settings, at_step={step: die})


def last_line(capsys):
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("  toy"))


@pytest.mark.parametrize(
    ("flags", "bfloat16", "reason"),
    [(AMX, True, "AMX"), (NO_AMX, False, "without AMX"), ((), False, "without AMX")],
)
def test_a_cpu_is_judged_by_amx(monkeypatch, flags, bfloat16, reason):
    pretend(monkeypatch, flags)
    choice = precision.choose("auto", "cpu")
    assert choice.bfloat16 is bfloat16
    assert reason in str(choice)


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_is_judged_by_bfloat16(monkeypatch, supported):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    choice = precision.choose("auto", "cuda")
    assert choice.bfloat16 is supported
    assert "GPU" in str(choice)


def test_any_other_device_gets_float32(monkeypatch):
    pretend(monkeypatch, AMX)
    assert str(precision.choose("auto", "mps")).startswith("float32 (")


def test_flags_are_those_of_cpuinfo(monkeypatch, tmp_path):
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "CPUINFO", path)
    read = precision.cpu_flags.__wrapped__
    assert read() == frozenset()
    path.write_text("processor : 0\nflags\t\t: fpu amx_bf16 avx512f\n")
    assert {"amx_bf16", "avx512f"} <= read()


@pytest.mark.parametrize("flags", [AMX, NO_AMX])
def test_auto_is_what_the_machine_is_good_at(monkeypatch, flags, tmp_path, capsys):
    pretend(monkeypatch, flags)
    toy = run(tmp_path / "auto")
    assert toy.heard == [flags == AMX] * 12
    assert f"toy in {'bfloat16' if flags == AMX else 'float32'} (" in last_line(capsys)
    assert load_state(tmp_path / "auto" / "checkpoint.pt")["bfloat16"] is (flags == AMX)
    explicit = run(tmp_path / "explicit", replace(AUTO, bfloat16=flags == AMX))
    assert same_weights(toy, explicit)


@pytest.mark.parametrize("asked", [True, False])
def test_true_and_false_are_obeyed(monkeypatch, asked, tmp_path, capsys):
    pretend(monkeypatch, NO_AMX if asked else AMX)
    assert run(tmp_path, replace(AUTO, bfloat16=asked)).heard == [asked] * 12
    assert "(as set)" in last_line(capsys)


@pytest.mark.parametrize(("begun", "resumed"), [(AMX, NO_AMX), (NO_AMX, AMX)])
def test_a_resumed_training_keeps_its_arithmetic(monkeypatch, begun, resumed, tmp_path, capsys):
    pretend(monkeypatch, begun)
    whole = run(tmp_path / "whole")
    kill_at(6, tmp_path / "killed")
    pretend(monkeypatch, resumed)
    capsys.readouterr()
    again = run(tmp_path / "killed", resume=True)
    assert again.heard == [begun == AMX] * 8
    assert same_weights(whole, again)
    kept, here = ("bfloat16", "float32") if begun == AMX else ("float32", "bfloat16")
    line = last_line(capsys)
    assert f"toy in {kept} (as it was begun" in line
    assert f"this machine would take {here}, " in line
    assert load_state(tmp_path / "killed" / "checkpoint.pt")["bfloat16"] is (begun == AMX)


def test_resumed_on_the_same_machine_nothing_is_kept_against_it(monkeypatch, tmp_path, capsys):
    pretend(monkeypatch, NO_AMX)
    kill_at(6, tmp_path)
    capsys.readouterr()
    run(tmp_path, resume=True)
    assert last_line(capsys) == "  toy in float32 (without AMX bfloat16 is slower)"


def test_checkpoints_without_a_word_were_trained_in_bfloat16(monkeypatch, tmp_path):
    pretend(monkeypatch, NO_AMX)
    kill_at(6, tmp_path)
    state = load_state(tmp_path / "checkpoint.pt")
    del state["bfloat16"]
    save_state(tmp_path / "checkpoint.pt", state)
    assert all(run(tmp_path, resume=True).heard)


@pytest.mark.parametrize("flags", [AMX, NO_AMX])
def test_a_rehearsal_takes_the_same(monkeypatch, flags):
    pretend(monkeypatch, flags)
    toy = Listener()
    Practice(toy, SimpleRun(), AUTO).step(0)
    assert toy.heard == [flags == AMX]


class SimpleRun:
    sampler = ToySampler()


def test_recipes_that_say_nothing_get_auto():
    assert read_recipe("run", RunRecipe).settings.bfloat16 == "auto"
    assert validate(OptimiserRecipe, {"bfloat16": True}, "x").bfloat16 is True
    assert validate(OptimiserRecipe, {"bfloat16": False}, "x").bfloat16 is False
    assert QatRecipe().settings(8, seed=0).bfloat16 is False


@pytest.mark.parametrize("value", ["fast", 2, None, []])
def test_a_bad_value_is_one_line(value):
    with pytest.raises(InputError) as caught:
        validate(OptimiserRecipe, {"bfloat16": value}, "my.yaml")
    assert str(caught.value) == f"my.yaml: bfloat16: give auto, true or false, got {value!r}"
