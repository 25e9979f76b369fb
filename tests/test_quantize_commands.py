"""`compress export --quantize` and `compress run --quantize`, the whole way on tiny models."""

from __future__ import annotations

import json

import pytest

from compress.bundle import calibration_speech
from compress.cli import run_app
from streaming import open_bundle
from streaming.bundle import read_bundle
from streaming.features import FeatureSettings
from tests.export.conftest import make_speech


@pytest.mark.slow
def test_export_as_int4(teacher, tmp_path):
    out = tmp_path / "bundle"
    assert run_app(["export", str(teacher), "--quantize", "int4", "--out", str(out)]) == 0
    info = read_bundle(out)
    assert info.default_precision == "int4"
    assert {layer["form"] for layer in info.layers} >= {"int4", "int8", "half"}
    stream = open_bundle(out).create_stream()
    stream.accept(make_speech(16000, 0))
    stream.finish()


def test_unknown_method(teacher, tmp_path, capsys):
    assert (
        run_app(["export", str(teacher), "--quantize", "int3", "--out", str(tmp_path / "b")]) == 2
    )
    assert (
        "--quantize is one of int8, static, qat, int4, auto, none, got 'int3'"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_a_run_with_static(call, tmp_path):
    assert call("--out", "here", "--quantize", "static") == 0
    info = read_bundle(tmp_path / "here" / "bundle")
    assert info.default_precision == "static"
    report = json.loads((tmp_path / "here" / "report.json").read_text())
    assert all(row["passed"] for row in report["parity"])
    assert report["bundle"]["onnx_bytes"] < report["teacher"]["bytes"]


def test_calibration_hears_the_dev_split_and_never_the_test_split(monkeypatch):
    asked = []

    def cuts(spec, split):
        asked.append((spec, split))
        return [f"{spec}-{n}" for n in range(100)]

    monkeypatch.setattr("compress.bundle.real_cuts", cuts)
    monkeypatch.setattr("compress.bundle.has_split", lambda spec, split: spec == "a")
    monkeypatch.setattr("compress.bundle.read_samples", lambda cut: make_speech(1600, len(cut)))
    heard = calibration_speech(FeatureSettings(), ["a", "b"], 0)
    assert asked == [("a", "dev"), ("b", "train")]
    assert 30 <= len(heard) <= 36
    assert heard[0].shape == (10, 80)
