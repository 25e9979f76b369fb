"""`compress verify`: the whole ladder on a bundle, its failures, and what a precision costs."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import compress.verify
import export.divergence
from compress.bundle import export_model
from compress.checkpoint import save_model
from compress.cli import run_app
from compress.data.sets import spread
from compress.difference import compare_texts
from compress.verify import describe_failure, judge, sherpa_rows
from export.errors import ExportError
from streaming.bundle import read_bundle, write_sha256sums
from streaming.errors import InputError
from tests.tiny_teacher import build_teacher, build_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A random model that says a token every few frames, and its bundle."""
    model = build_teacher(seed=3, num_layers=1)
    with torch.no_grad():
        model.joiner.output.weight.mul_(6.0)
        model.encoder.project.weight.mul_(3.0)
        model.joiner.output.bias[0] += 3.0
    folder = tmp_path_factory.mktemp("verify")
    save_model(model, folder / "model", build_tokenizer(), {})
    export_model(folder / "model", folder / "bundle")
    return folder


@pytest.fixture
def verify(folders, tmp_path, cache, monkeypatch):
    """Run `compress verify` on a copy of the bundle; returns the exit code."""
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))
    shutil.copytree(folders / "bundle", tmp_path / "bundle")

    def export_again(encoder, predictor, joiner, folder, blocks):
        """The same model gives the same bytes (export/test_bundle.py)."""
        shutil.copytree(folders / "bundle", folder, dirs_exist_ok=True)

    monkeypatch.setitem(export.divergence.TARGETS, "sherpa_lstm", export_again)

    def run(*options):
        arguments = ["--num", "8", "--out", str(tmp_path / "out"), *options]
        return run_app(["verify", str(tmp_path / "bundle"), *arguments])

    return run


def found(tmp_path):
    return json.loads((tmp_path / "out" / "parity.json").read_text())


def perturb_encoder(folder):
    """Returns the name of the weight of which one value is another now."""
    path = folder / "encoder.onnx"
    model = onnx.load(path)
    weight = next(i for i in model.graph.initializer if "feed_forward_out" in i.name and i.dims)
    array = numpy_helper.to_array(weight).copy()
    array.flat[7] += 1.0
    name = weight.name
    weight.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, path)
    write_sha256sums(folder)
    return name


def test_the_whole_ladder(verify, folders, tmp_path, capsys):
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is in the extra [dev]")
    assert verify("--model", str(folders / "model"), "--seed", "5") == 0
    err = capsys.readouterr().err
    assert "torch whole" in err
    assert "next: compress transcribe" in err
    content = found(tmp_path)
    rows = content["rows"]
    assert all(row["passed"] for row in rows)
    assert len(rows) == 5 + 4 + 2
    assert [row["to"] for row in rows[-2:]] == ["sherpa-onnx fp32", "sherpa-onnx int8"]
    assert rows[-1]["tokens"] > 8
    (difference,) = content["wer_difference"]
    assert (difference["data"], difference["precision"]) == ("synthetic/test", "int8")
    assert difference["low"] <= difference["difference"] <= difference["high"]
    assert not (tmp_path / "out" / "evidence").exists()


def test_a_changed_weight_is_named_and_the_chunk_kept(verify, folders, tmp_path, capsys):
    name = perturb_encoder(tmp_path / "bundle")
    assert verify("--model", str(folders / "model")) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("compress: parity failed (torch streaming = onnxruntime fp32, batch 1")
    assert "from chunk " in line
    assert f"reading {name}" in line
    assert line.endswith(f"see {tmp_path / 'out' / 'parity.json'}")
    row = found(tmp_path)["rows"][1]
    assert not row["passed"]
    kept = np.load(row["evidence"])
    assert kept["x"].shape == (1, 32, 80)
    assert np.abs(kept["from_encoder_out"] - kept["to_encoder_out"]).max() > 1e-4


def test_without_model_and_sherpa(verify, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compress.verify.importlib.util, "find_spec", lambda name: None)
    assert verify() == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "the ladder begins at onnxruntime" in err
    assert "sherpa-onnx is not installed: its step is left out" in err
    rows = found(tmp_path)["rows"]
    assert rows[0]["from"] == "fp32, after reset"
    assert len(rows) == 3 + 2


def test_a_sherpa_that_dies_or_says_something_else_fails(folders, tmp_path, monkeypatch):
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is in the extra [dev]")
    info = read_bundle(folders / "bundle")
    sets = {"set": [("first", np.zeros(1600, np.float32), ""), ("second", np.ones(9), "")]}
    answers = [ExportError("sherpa-onnx ended with 255"), {"different": [1], "passed": False}]

    def compare(*arguments):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"from": "streaming int8", "to": "sherpa-onnx int8", **answer}

    monkeypatch.setattr(compress.verify, "compare_with_sherpa", compare)
    died, other = sherpa_rows(info, sets, tmp_path)
    assert describe_failure(died) == (
        "streaming fp32 = sherpa-onnx fp32 sherpa-onnx ended with 255"
    )
    assert not died["passed"]
    assert describe_failure(other).endswith("other tokens in second")
    assert np.load(other["evidence"])["second"].tolist() == [1] * 9


def test_a_model_that_does_not_fit(verify, tmp_path, capsys):
    save_model(build_teacher(num_layers=3), tmp_path / "other", build_tokenizer(), {})
    assert verify("--model", str(tmp_path / "other")) == 2
    told = capsys.readouterr().err
    assert "the model has states of " in told
    assert "give the model folder that the bundle was exported from" in told


def test_a_budget_of_word_errors(tmp_path):
    lost = compare_texts("set", "int8", ["a b", "c d"], ["a b", "c d"], ["a b", "c x"])
    with pytest.raises(InputError, match=r"int8 loses 25.00 points of WER on set\): see "):
        judge([], [lost], 24.9, tmp_path)
    judge([], [lost], 25.1, tmp_path)
    judge([], [lost], None, tmp_path)


def test_difference_by_hand():
    said = ["one two three four", "five six"]
    found = compare_texts("d", "int8", said, ["one two three", "five six"], ["one", "five"])
    assert (found.wer_fp32, found.wer, found.words) == (1 / 6, 4 / 6, 6)
    assert found.difference == pytest.approx(0.5)
    assert found.low <= 0.5 <= found.high
    same = compare_texts("d", "int8", said, said, said)
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)
    assert str(same).endswith("+0.00 points [+0.00, +0.00]")


def test_the_interval_is_that_of_a_slow_bootstrap():
    rng = np.random.default_rng(1)
    said, base, heard = [], [], []
    for _ in range(60):
        words = [str(word) for word in rng.integers(0, 9, rng.integers(1, 6))]
        said.append(" ".join(words))
        base.append(" ".join(w if rng.random() > 0.1 else "x" for w in words))
        heard.append(" ".join(w if rng.random() > 0.3 else "x" for w in words))
    found = compare_texts("d", "int8", said, base, heard)

    def errors(one, other):
        return sum(a != b for a, b in zip(one.split(), other.split(), strict=True))

    draws = []
    for _ in range(2000):
        chosen = rng.integers(0, 60, 60)
        words = sum(len(said[i].split()) for i in chosen)
        more = sum(errors(said[i], heard[i]) - errors(said[i], base[i]) for i in chosen)
        draws.append(more / words)
    assert found.low == pytest.approx(np.quantile(draws, 0.025), abs=0.015)
    assert found.high == pytest.approx(np.quantile(draws, 0.975), abs=0.015)
    assert found.low > 0, "three times the errors on 60 utterances show"


def test_spread():
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread(list(range(3)), 4) == [0, 1, 2]
    assert spread([], 4) == []
