"""`compress train --student`: every recipe trains and resumes; what cannot be is refused."""

from __future__ import annotations

import functools
import hashlib
import json
import re

import pytest
import torch
import yaml

from compress import trainer
from compress.checkpoint import load_model, save_model
from compress.cli import run_app
from compress.config import RECIPES
from compress.data import grammar
from compress.data.tokenizer import train_tokenizer
from compress.precision import choose
from compress.trainer import read_log
from streaming.bundle import read_bundle
from tests.tiny_teacher import build_teacher, build_tokenizer

STUDENTS = sorted(
    path.stem
    for path in RECIPES.glob("*.yaml")
    if path.stem not in ("run", "sparse-60", "sparse-90", "demo-teacher")
)
NARROW = {
    "conformer": {"num_layers": 1, "num_heads": 2, "feed_forward": 32},
    "lstm": {"num_layers": 1},
}


def tiny(name):
    """A shipped recipe with everything small: its methods, settings and order of phases stay."""
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    model = recipe["model"]
    shared = recipe.get("tandem") == "shared"
    model |= NARROW[model.get("kind", "conformer")]
    model |= {"width": 16, "joint_width": 48 if shared else 16}
    recipe["synthetic"] = {"train": 24, "dev": 8, "test": 8}
    recipe["phases"] = [{**phase, "steps": 2} for phase in recipe["phases"]]
    recipe["distill"] = re.sub(r"@(0-)?\d+", lambda span: f"@{span[1] or ''}2", recipe["distill"])
    recipe["batch"] = {"seconds": 6}
    return recipe


@pytest.fixture
def study(tmp_path, teacher, cache, monkeypatch):
    """Run `compress train --student` on a recipe's content; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))

    def run(recipe, *arguments):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
        options = ["--student", "mine.yaml", "--teacher", str(teacher), "--out", "student"]
        return run_app(["train", *options, *arguments])

    return run


def write_lm(teacher):
    assert (
        run_app(["train-lm", "--tokenizer", str(teacher), "--order", "2", "--out", "runs/lm"]) == 0
    )


@pytest.mark.parametrize("name", STUDENTS)
def test_every_recipe_trains(name, study, teacher, tmp_path):
    recipe = tiny(name)
    if "lm" in str(recipe.get("methods", {})):
        write_lm(teacher)
    assert study(recipe) == 0
    model, tokenizer = load_model(tmp_path / "student")
    assert model.encoder.project.out_features == recipe["model"]["joint_width"]
    assert tokenizer.model == load_model(teacher)[1].model
    record = json.loads((tmp_path / "student" / "record.json").read_text())
    assert record["recipe"]["distill"] == recipe["distill"]
    assert record["recipe"]["train"]["bfloat16"] == "auto"
    assert record["bfloat16"] is choose("auto", "cpu").bfloat16
    log = [
        json.loads(row)
        for row in (tmp_path / "student/training/log.jsonl").read_text().splitlines()
    ]
    taught = recipe["distill"].split(",")[-1].partition("=")[0]
    assert log[-1][taught] > 0
    if recipe.get("tandem", "none") != "none":
        assert log[-1]["teacher_transducer"] > 0


def test_a_killed_training_goes_on_to_the_same_student(study, tmp_path, monkeypatch):
    recipe = tiny("codert-colearn")
    assert study(recipe) == 0
    whole = load_model(tmp_path / "student")[0].state_dict()
    (tmp_path / "student").rename(tmp_path / "whole")

    settings = trainer.TrainSettings.__init__
    often = functools.partialmethod(settings, checkpoint_every=2)
    monkeypatch.setattr(trainer.TrainSettings, "__init__", often)
    original, steps = trainer.run_step, []

    def dying_step(*arguments):
        steps.append(arguments[3])
        if len(steps) == 4:
            raise SystemExit("killed")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "run_step", dying_step)
        with pytest.raises(SystemExit):
            study(recipe)
    assert study(recipe) == 2  # it wants --resume
    assert study(recipe, "--resume") == 0
    again = load_model(tmp_path / "student")[0].state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_refusals_come_before_anything_is_written(study, teacher, tmp_path, capsys):
    recipe = tiny("codert-static")
    cases = [
        ((recipe, "--recipe", "run"), "give one of them"),
        ((recipe, "--distill", "encoder=0"), "weight of encoder is above 0"),
        ((recipe, "--distill", "encodr"), "no distillation method 'encodr'"),
        (({**recipe, "methods": {"hidden": {"eps": 1}}},), "hidden has no setting 'eps'"),
        (({**recipe, "distill": "none", "phases": [{"steps": 2}]},), "phase 0: give phone"),
    ]
    for arguments, message in cases:
        assert study(*arguments) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "student").exists()
    assert run_app(["train", "--recipe", "mine.yaml"]) == 2


def test_conflicts_between_teacher_and_student_are_named(study, teacher, tmp_path, capsys):
    other = train_tokenizer(["seven eight", "lamp off now"], 48)
    save_model(build_teacher(), tmp_path / "foreign", other, {})
    recipe = tiny("codert-static")
    recipe["model"] = {"num_layers": 2, "width": 48, "num_heads": 2, "feed_forward": 96}
    recipe["model"] |= {"joint_width": 48, "kernel_size": 5}
    assert study(recipe, "--init", "foreign") == 2
    assert "encoder compares token by token" in capsys.readouterr().err
    recipe["model"]["width"] = 32
    assert study(recipe, "--init", str(teacher), "--out", "other") == 2
    assert "does not fit the recipe's model" in capsys.readouterr().err
    shared = tiny("codert-shared")
    shared["model"]["joint_width"] = 16
    assert study(shared, "--out", "third") == 2
    assert "shared joiner needs equal joint widths" in capsys.readouterr().err


def test_full_sum_between_different_tokenizers(study, tmp_path):
    """One number crosses from teacher to student: each scores the text in its own tokens."""
    other = train_tokenizer([*grammar.sentences(50, 0), "seven eight lamp"], 48)
    save_model(build_teacher(), tmp_path / "foreign", other, {})
    recipe = tiny("full-sum")
    recipe["model"] = {"num_layers": 2, "width": 48, "num_heads": 2, "feed_forward": 96}
    recipe["model"] |= {"joint_width": 48, "kernel_size": 5}
    assert study(recipe, "--init", "foreign") == 0
    assert load_model(tmp_path / "student")[1].model == other.model
    rows = read_log(tmp_path / "student" / "training" / "log.jsonl")
    assert rows[-1]["full_sum"] > 0
    header = (tmp_path / "student" / "targets" / "reference.jsonl").read_text().splitlines()[0]
    wanted = hashlib.sha256(build_tokenizer().model).hexdigest()[:16]
    assert json.loads(header)["tokenizer"] == wanted


def test_a_student_becomes_a_bundle_and_a_full_context_one_does_not(study, tmp_path, capsys):
    assert study(tiny("codert-shared")) == 0
    assert run_app(["export", "student", "--out", "bundle"]) == 0
    assert "wrote bundle" in capsys.readouterr().err
    info = read_bundle(tmp_path / "bundle")
    assert info.provenance["data"] == ["synthetic"]
    assert info.default_precision == "int8"
    names = {name for layer in info.layers for name in [layer["name"]]}
    assert not any("tandem" in name for name in names)  # the learning teacher is gone
    assert run_app(["export", "student", "--out", "bundle"]) == 2
    assert "bundle exists" in capsys.readouterr().err
    assert run_app(["export", "student", "--quantize", "int3", "--out", "b"]) == 2

    (tmp_path / "student").rename(tmp_path / "first")
    assert study(tiny("one-best")) == 0
    assert run_app(["export", "student", "--out", "offline"]) == 2
    assert "does not stream" in capsys.readouterr().err
