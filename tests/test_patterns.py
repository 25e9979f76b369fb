"""Every pattern the whole way: run, parity, report, pack, and the same tokens in sherpa-onnx."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from compress.bundle import export_model
from compress.checkpoint import load_model, save_model
from compress.shrink.candidate import cut_at_once
from compress.shrink.pruner import Cut
from compress.trainer import read_log
from export.pack import unpack_bundle
from streaming.bundle import hash_file
from tests.tiny_teacher import RECIPE, build_teacher, build_tokenizer

PATTERNS = {
    "channel": 0.5,
    "block:16": 0.6,
    "unstructured": 0.7,
    "2:4": 0.35,
    "layers": 0.3,
    "small": 0.5,
}


@pytest.mark.parametrize(
    "pattern",
    [pytest.param(p, marks=() if p == "block:16" else pytest.mark.slow) for p in PATTERNS],
)
def test_a_run_of_every_pattern(pattern, call, tmp_path, teacher):
    """Channel's is in test_pipeline.py."""
    sparsity = PATTERNS[pattern]
    assert call("--out", "here", "--pattern", pattern, "--sparsity", str(sparsity)) == 0
    report = json.loads((tmp_path / "here" / "report.json").read_text())
    student = load_model(tmp_path / "here" / "student")[0]
    dense = load_model(teacher)[0].num_parameters
    assert report["student"]["parameters"] == student.num_kept <= (1 - sparsity) * dense
    assert report["student"]["total_sparsity"] >= sparsity
    assert all(row["passed"] for row in report["parity"])
    layers = report["student"]["layers"]
    forms = {layer["form"] for layer in layers if layer["pattern"] == pattern}
    assert forms == {"block:16": {"blocks"}, "unstructured": {"zeros"}, "2:4": {"zeros"}}.get(
        pattern, set()
    )
    idle = "make nothing faster" in (tmp_path / "here" / "report.md").read_text()
    assert idle == (pattern in ("unstructured", "2:4"))
    unpack_bundle(tmp_path / "here" / "bundle.pack", tmp_path / "unpacked")
    for name in ("encoder.int8.onnx", "joiner.int8.onnx"):
        assert hash_file(tmp_path / "unpacked" / name) == hash_file(
            tmp_path / "here" / "bundle" / name
        )


@pytest.mark.slow
def test_mixed_patterns_by_module(call, tmp_path):
    mix = {"feed_forward": "channel", "attention": "block:8"}
    settings = RECIPE | {"mix": mix, "exclude": ["joiner"]}
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(settings))
    options = ("--recipe", str(tmp_path / "mixed.yaml"), "--pattern", "unstructured")
    assert call("--out", "here", *options) == 0
    student = load_model(tmp_path / "here" / "student")[0]
    assert student.config.encoder.layers[0].feed_forward_in < 96
    assert student.config.sparse["encoder.layers.0.attention.key"] == "block:8"
    assert student.config.sparse["encoder.front.second"] == "unstructured"
    assert "joiner.output" not in student.config.sparse


@pytest.mark.slow
def test_a_guarded_run_puts_the_best_back(call, tmp_path, capsys):
    settings = RECIPE | {"guard": {"every": 1, "num_utterances": 4}}
    (tmp_path / "guarded.yaml").write_text(yaml.safe_dump(settings))
    assert call("--out", "here", "--recipe", str(tmp_path / "guarded.yaml")) == 0
    assert "teacher on development speech: WER" in capsys.readouterr().err
    rows = read_log(tmp_path / "here/shrink/log.jsonl")
    assert rows[-1]["sparsity"] >= 0.5


def talkative(pattern):
    """A random teacher that says a token every few frames, cut at once."""
    model = build_teacher(seed=3)
    with torch.no_grad():
        model.joiner.output.weight.mul_(6.0)
        model.encoder.project.weight.mul_(3.0)
    student = cut_at_once(model, Cut(pattern), PATTERNS[pattern])
    boost = 4.0 if pattern == "small" else 1.0  # fresh weights, not those above
    with torch.no_grad():
        student.joiner.output.weight.mul_(boost)
        student.joiner.output.bias[0] += 3.0
    return student


# Each run above ends with a comparison of its own, of a student that hardly says anything.
@pytest.mark.parametrize(
    "pattern",
    [pytest.param(p, marks=() if p == "block:16" else pytest.mark.slow) for p in PATTERNS],
)
def test_same_tokens_in_sherpa(pattern, tmp_path):
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is in the extra [dev]")
    from export.sherpa import compare_with_sherpa
    from tests.export.conftest import make_speech

    save_model(talkative(pattern), tmp_path / "model", build_tokenizer(), {})
    export_model(tmp_path / "model", tmp_path / "bundle")
    samples = [make_speech(8000 + 2777 * seed, seed) for seed in range(8)]
    for precision in ("fp32", "int8"):
        row = compare_with_sherpa(tmp_path / "bundle", samples, precision)
        assert row["passed"], row
        assert row["tokens"] > 0.5 * sum(map(len, samples)) / 16000
