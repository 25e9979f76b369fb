"""`compress run` end to end on a tiny untrained teacher: stages, resume, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from compress import pipeline, trainer
from compress.checkpoint import load_model
from tests.tiny_teacher import RECIPE

ROOT = Path(__file__).resolve().parents[1]


def weights(folder):
    return load_model(folder / "student")[0].state_dict()


def same_weights(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_run_writes_bundle_and_report(call, tmp_path, teacher, capsys):
    assert call("--out", "here", "--compare") == 0
    report = json.loads((tmp_path / "here" / "report.json").read_text())
    dense = load_model(teacher)[0].num_parameters
    assert report["teacher"]["parameters"] == dense
    assert 0.45 * dense < report["student"]["parameters"] <= 0.5 * dense
    assert report["student"]["total_sparsity"] >= 0.5
    assert report["student_without_distillation"]["wer"]["synthetic/test"]["words"] > 0
    assert all(row["passed"] for row in report["parity"])
    for name in ("encoder.onnx", "encoder.int8.onnx", "tokens.txt", "bpe.model", "SHA256SUMS"):
        assert (tmp_path / "here" / "bundle" / name).is_file()
    for name in ("report.html", "report.md"):
        assert (tmp_path / "here" / name).is_file()
    log = [json.loads(row) for row in (tmp_path / "here/shrink/log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == RECIPE["steps"]
    assert log[-1]["sparsity"] >= 0.5
    check_that_finished_stages_are_not_repeated(call, tmp_path / "here", capsys)


def check_that_finished_stages_are_not_repeated(call, folder, capsys):
    before = (folder / "shrink" / "done.json").stat().st_mtime_ns
    shutil.rmtree(folder / "verify")
    capsys.readouterr()
    assert call("--out", folder.name, "--compare", "--resume") == 0
    told = capsys.readouterr().err
    assert "shrink: done before" in told
    assert "verify: done before" not in told
    assert (folder / "shrink" / "done.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_student(call, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.TrainSettings, "__init__", often(trainer.TrainSettings.__init__))
    assert call("--out", "whole") == 0
    steps = []
    original = trainer.run_step

    def dying_step(*arguments):
        steps.append(arguments[3])
        if len(steps) == 4:
            raise SystemExit("killed")
        return original(*arguments)

    monkeypatch.setattr(trainer, "run_step", dying_step)
    with pytest.raises(SystemExit):
        call("--out", "killed")
    assert call("--out", "killed") == 2, "without --resume the folder is refused"
    monkeypatch.setattr(trainer, "run_step", original)
    assert call("--out", "killed", "--resume") == 0
    assert steps == [0, 1, 2, 3]
    assert same_weights(tmp_path / "whole", tmp_path / "killed")


def often(initialise):
    """Checkpoints every two steps."""

    def wrapped(self, *arguments, **settings):
        initialise(self, *arguments, **{**settings, "checkpoint_every": 2})

    return wrapped


def test_killed_in_every_stage_resumes_to_the_same_bundle(call, tmp_path, monkeypatch):
    """A stage dies when its work is done but not yet marked so: the worst moment."""
    assert call("--out", "whole") == 0
    original = pipeline.write_json
    for name, _ in pipeline.STAGES:

        def dying_write(path, content, name=name):
            if path.match(f"{name}/done.json"):
                raise SystemExit("killed")
            original(path, content)

        monkeypatch.setattr(pipeline, "write_json", dying_write)
        if name not in ("compare", "quantize"):  # not asked for
            with pytest.raises(SystemExit):
                call("--out", "killed", "--resume")
    monkeypatch.setattr(pipeline, "write_json", original)
    assert call("--out", "killed", "--resume") == 0
    for graph in ("encoder", "decoder", "joiner"):
        one, other = (
            tmp_path / run / "bundle" / f"{graph}.int8.onnx" for run in ("whole", "killed")
        )
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_same_seed_same_student(call, tmp_path):
    assert call("--out", "one", "--seed", "3") == 0
    assert call("--out", "two", "--seed", "3") == 0
    assert same_weights(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_kill_9_while_shrinking(call, tmp_path, teacher, recipe, cache):
    """A real SIGKILL of a real process, then --resume: the same student as without it."""
    assert call("--steps", "60", "--out", "whole") == 0
    options = ["--sparsity", "0.5", "--recipe", recipe, "--teacher", teacher, "--steps", "60"]
    command = [sys.executable, "-c", "from compress.cli import main; main()", "run"]
    process = subprocess.Popen(
        [*command, *map(str, options), "--out", "killed"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    log = tmp_path / "killed" / "shrink" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert call("--steps", "60", "--out", "killed", "--resume") == 0
    assert same_weights(tmp_path / "whole", tmp_path / "killed")
