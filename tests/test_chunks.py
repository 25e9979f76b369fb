"""One student, several chunk sizes: `compress export --chunk-ms`, `run --chunk-ms`, `verify`."""

from __future__ import annotations

import json

import pytest
import torch

from compress.checkpoint import save_model
from compress.cli import run_app
from export.sherpa import compare_with_sherpa
from export.validate import validate_bundle
from streaming import open_bundle
from streaming.bundle import read_bundle
from tests.export.conftest import make_speech
from tests.tiny_teacher import build_teacher, build_tokenizer

SIZES_MS = (80, 320, 640)
OWN = {"bundle.json", "README.md", "SHA256SUMS", "encoder.onnx", "encoder.int8.onnx"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random student of 320 ms that says a token every few frames, and a bundle of each size."""
    model = build_teacher(seed=3, num_layers=1)
    with torch.no_grad():
        model.joiner.output.weight.mul_(6.0)
        model.encoder.project.weight.mul_(3.0)
        model.joiner.output.bias[0] += 3.0
    place = tmp_path_factory.mktemp("chunks")
    save_model(model, place / "model", build_tokenizer(), {})
    arguments = ["--chunk-ms", "80,320,640", "--out", str(place / "several")]
    assert run_app(["export", str(place / "model"), *arguments]) == 0
    return place


@pytest.mark.parametrize("chunk_ms", SIZES_MS)
def test_each_bundle_is_whole_and_says_its_chunk(folder, chunk_ms):
    bundle = folder / "several" / f"{chunk_ms}ms"
    info = read_bundle(bundle)
    assert validate_bundle(bundle) == []
    assert (info.name, info.chunk_frames) == (f"several-{chunk_ms}ms", chunk_ms // 10)
    assert info.tail_frames == 32, "the silence that training has, at every chunk"
    assert info.state_sizes == read_bundle(folder / "several" / "320ms").state_sizes
    assert info.tensors["encoder"]["inputs"][0]["shape"] == ["N", chunk_ms // 10, 80]
    assert (
        f"| chunk | {chunk_ms // 10} frames = {chunk_ms} ms |" in (bundle / "README.md").read_text()
    )
    for path in bundle.iterdir():
        assert path.stat().st_nlink == (1 if path.name in OWN else len(SIZES_MS)), path.name


def test_they_hear_the_same_model(folder):
    """Other chunks are other functions, but not by much; the same samples are heard to the end."""
    heard = {}
    for chunk_ms in SIZES_MS:
        recognizer = open_bundle(folder / "several" / f"{chunk_ms}ms", "fp32")
        stream = recognizer.create_stream()
        stream.accept(make_speech(32000, 1))
        stream.finish()
        result = recognizer.get_result_all(stream)
        assert 2.0 + 0.32 <= result.seconds < 2.0 + 0.32 + 0.001 * chunk_ms + 0.04
        heard[chunk_ms] = result.tokens
    assert min(map(len, heard.values())) > 5
    assert len(set(map(tuple, heard.values()))) > 1


@pytest.mark.parametrize("chunk_ms", [80, 640])
def test_sherpa_hears_the_same(folder, chunk_ms):
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is in the extra [dev]")
    samples = [make_speech(8000 + 2777 * seed, seed) for seed in range(6)]
    row = compare_with_sherpa(folder / "several" / f"{chunk_ms}ms", samples, "fp32")
    assert row["passed"], row
    assert row["tokens"] > 20
    assert row["max_error"] < 1e-4


def test_verify_climbs_at_the_bundles_own_chunk(folder, tmp_path, cache, monkeypatch, capsys):
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))
    arguments = ["--model", str(folder / "model"), "--num", "8", "--out", str(tmp_path / "out")]
    assert run_app(["verify", str(folder / "several" / "80ms"), *arguments]) == 0
    rows = json.loads((tmp_path / "out" / "parity.json").read_text())["rows"]
    assert rows[0]["from"] == "torch whole"
    assert all(row["passed"] for row in rows)


def test_pack_and_unpack(folder, tmp_path, capsys):
    pack, again = tmp_path / "several.pack", tmp_path / "again"
    assert run_app(["pack", str(folder / "several"), "--out", str(pack)]) == 0
    assert run_app(["unpack", str(pack), "--out", str(again)]) == 0
    assert f"next: compress transcribe {again}/320ms" in capsys.readouterr().err
    for chunk_ms in SIZES_MS:
        found, wanted = (place / f"{chunk_ms}ms" for place in (again, folder / "several"))
        for graph in ("encoder", "decoder", "joiner"):
            name = f"{graph}.int8.onnx"
            assert (found / name).read_bytes() == (wanted / name).read_bytes()
    sizes = [
        (folder / "several" / f"{ms}ms" / "encoder.int8.onnx").stat().st_size for ms in SIZES_MS
    ]
    assert pack.stat().st_size < 0.4 * sum(sizes)


@pytest.mark.parametrize(
    ("chunk_ms", "message"),
    [
        ("100", "a chunk is a multiple of 40 ms, from 40 to 40960; got 100: try 80"),
        ("0", "got 0: try 40"),
        ("50000", "got 50000: try 40960"),
        ("80,80", "a chunk of 80 ms is asked for twice"),
        ("fast", "--chunk-ms is milliseconds and commas"),
    ],
)
def test_refused_before_anything_is_written(folder, tmp_path, capsys, chunk_ms, message):
    arguments = ["--chunk-ms", chunk_ms, "--out", str(tmp_path / "out")]
    assert run_app(["export", str(folder / "model"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_stream_and_a_folder_that_exists(folder, tmp_path, capsys):
    model = build_teacher(num_layers=1)
    encoder = model.config.encoder.model_copy(update={"full_context": True})
    model.config = model.config.model_copy(update={"encoder": encoder})
    save_model(model, tmp_path / "whole", build_tokenizer(), {})
    arguments = ["--chunk-ms", "80", "--out", str(tmp_path / "out")]
    assert run_app(["export", str(tmp_path / "whole"), *arguments]) == 2
    assert "hears whole utterances and does not stream" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    (tmp_path / "out").mkdir()
    assert run_app(["export", str(folder / "model"), *arguments]) == 2
    assert "out exists: choose another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_writes_bundles_for_other_chunks(call, tmp_path):
    assert call("--out", "here", "--chunk-ms", "640") == 0
    run = tmp_path / "here"
    assert read_bundle(run / "bundle").chunk_frames == 32
    info = read_bundle(run / "bundles" / "640ms")
    assert (info.name, info.chunk_frames) == ("here-640ms", 64)
    assert info.measured["wer"]["synthetic/test"]["words"] > 0
    rows = json.loads((run / "verify" / "640ms" / "parity.json").read_text())["rows"]
    assert all(row["passed"] for row in rows)
    chunks = json.loads((run / "report.json").read_text())["chunks"]
    assert [chunk["size_ms"] for chunk in chunks] == [640]
    assert "| 640 ms |" in (run / "report.md").read_text()
    assert (run / "bundles.pack").exists()
