"""`compress run --quantize qat` and `compress export` of what it leaves, on a tiny model."""

from __future__ import annotations

import json

import pytest
import torch

from compress import pipeline, trainer
from compress.checkpoint import load_model
from compress.cli import run_app
from compress.models.predictors import BLANK
from streaming.bundle import read_bundle
from tests.tiny_teacher import RECIPE

PENALTY = 1.0


@pytest.fixture
def biases(monkeypatch):
    """Blank's bias whenever a stage asks for its penalty, which is always 1."""
    heard = []

    def calibrate(model, sets, tokenizer):
        with torch.no_grad():
            bias = model.joiner.output.bias
            heard.append(float(bias[BLANK]))
            bias[BLANK] -= PENALTY
        return PENALTY

    monkeypatch.setattr(pipeline, "calibrate_blank", calibrate)
    return heard


@pytest.mark.slow
def test_a_run_that_was_killed_while_rounding(call, tmp_path, monkeypatch, biases, capsys):
    original = trainer.run_step

    def dying_step(stage, *arguments):
        if arguments[2] == 1 and isinstance(stage, pipeline.QuantizeStage):
            raise SystemExit("killed")
        return original(stage, *arguments)

    monkeypatch.setattr(trainer, "run_step", dying_step)
    with pytest.raises(SystemExit):
        call("--out", "here", "--quantize", "qat")
    monkeypatch.setattr(trainer, "run_step", original)
    assert call("--out", "here", "--quantize", "qat", "--resume") == 0

    here = tmp_path / "here"
    info = read_bundle(here / "bundle")
    assert info.default_precision == "qat"
    learned = {layer["name"] for layer in info.layers if "learned_range" in layer}
    assert {"encoder.project", "predictor.project", "joiner.output"} < learned
    report = json.loads((here / "report.json").read_text())
    assert all(row["passed"] for row in report["parity"])
    assert "quantize" in report["seconds"]
    assert report["bundle"]["onnx_bytes"] < report["teacher"]["bytes"]
    log = (here / "quantize" / "log.jsonl").read_text().splitlines()
    row = json.loads(log[-1])
    assert row["step"] == max(1, round(0.25 * RECIPE["steps"]))
    assert row["lattice"] >= 0, "the teacher goes on teaching"

    student, rounded = (load_model(here / name)[0] for name in ("student", "quantized"))
    assert student.config == rounded.config
    assert not torch.equal(student.encoder.project.weight, rounded.encoder.project.weight)
    shrunk, trained = biases
    assert trained == pytest.approx(shrunk, abs=0.1), "training began without the penalty"
    bias = float(rounded.joiner.output.bias.detach()[BLANK])
    assert bias == pytest.approx(trained - PENALTY, abs=1e-3)

    check_export(here, tmp_path, capsys)


def check_export(here, tmp_path, capsys):
    """The same graphs come of the folder; one without ranges says what to do."""
    out = tmp_path / "again"
    assert run_app(["export", str(here / "quantized"), "--quantize", "qat", "--out", str(out)]) == 0
    for graph in ("encoder", "decoder", "joiner"):
        name = f"{graph}.qat.onnx"
        assert (out / name).read_bytes() == (here / "bundle" / name).read_bytes()
    capsys.readouterr()
    student, out = str(here / "student"), str(tmp_path / "none")
    assert run_app(["export", student, "--quantize", "qat", "--out", out]) == 2
    error = capsys.readouterr().err
    assert "has no ranges.json" in error
    assert "compress run --quantize qat" in error
    assert not (tmp_path / "none").exists()
