"""The page's recogniser in onnxruntime-web, under node: the tokens of streaming/."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

import streaming
from export.bundle import write_bundle
from streaming.bundle import write_sha256sums
from tests.export.conftest import KNOWN
from tests.export.conftest import make_speech as make_noise
from tests.export.nemo_models import FEATURES, build_nemo_model
from tests.streaming.tiny_bundle import make_speech
from tests.web.conftest import HERE, WEB

SIGNALS = [make_speech(num_samples, seed) for seed, num_samples in enumerate([48000, 7001, 100])]


@pytest.fixture
def recognise(node, runtime):
    """A function: bundle, precision, signals -> segments of each signal, or an error."""

    def run(bundle: Path, precision: str, signals, resets: bool = False) -> dict:
        task = {"web": str(WEB), "bundle": str(bundle), "precision": precision, "resets": resets}
        task["signals"] = [samples.tolist() for samples in signals]
        done = subprocess.run(
            [node, HERE / "runtime.mjs"],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def recognise_here(bundle: Path, precision: str, samples, resets: bool = False) -> list[dict]:
    """The segments that have a token, as the page's final messages say them."""
    recognizer = streaming.open_bundle(bundle, precision)
    stream = recognizer.create_stream()
    segments = []

    def close():
        result = recognizer.get_result_all(stream)
        tokens = [[token.index, token.frame] for token in stream.tokens]
        values = {"text": result.text, "start": result.start_seconds, "seconds": result.seconds}
        segments.extend([values | {"tokens": tokens}] if tokens else [])

    def decode():
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
            if resets and recognizer.is_endpoint(stream):
                close()
                recognizer.reset(stream)

    stream.accept_waveform(16000, samples)
    decode()
    stream.input_finished()
    decode()
    close()
    return segments


def check(found: list[dict], expected: list[dict]) -> None:
    assert [segment["tokens"] for segment in found] == [s["tokens"] for s in expected]
    assert [segment["text"] for segment in found] == [s["text"] for s in expected]
    for key in ("start", "seconds"):
        np.testing.assert_allclose([s[key] for s in found], [s[key] for s in expected])


def test_the_same_tokens(recognise, bundle):
    found = recognise(bundle, "fp32", SIGNALS)["found"]
    for samples, segments in zip(SIGNALS, found, strict=True):
        check(segments, recognise_here(bundle, "fp32", samples))
    assert sum(len(segment["tokens"]) for segment in found[0]) > 20


@pytest.mark.slow
def test_nearly_the_same_tokens_in_int8(recognise, bundle):
    """Scales come from float32 values, whose last bits differ: a rounding may fall elsewhere."""
    [[found], *_] = recognise(bundle, "", SIGNALS[:1])["found"]
    [expected] = recognise_here(bundle, "int8", SIGNALS[0])
    same = sum(token in expected["tokens"] for token in found["tokens"])
    assert same > 0.9 * len(expected["tokens"])


@pytest.mark.slow
def test_the_same_segments(recognise, bundle):
    pause = np.zeros(40000, dtype=np.float32)
    samples = np.concatenate([SIGNALS[0], pause, SIGNALS[1], pause, pause])
    [found] = recognise(bundle, "fp32", [samples], resets=True)["found"]
    expected = recognise_here(bundle, "fp32", samples, resets=True)
    assert len(expected) == 2
    check(found, expected)


@pytest.mark.slow
def test_the_same_tokens_of_a_predictor_with_a_state(recognise, tmp_path):
    """Target sherpa_nemo: other tensors, ten labels a frame, and a reset that forgets."""
    model = build_nemo_model("lstm")
    folder = tmp_path / "bundle"
    parts = (model.encoder, model.predictor, model.joiner)
    write_bundle(folder, *parts, KNOWN, features=FEATURES, target="sherpa_nemo")
    pause = np.zeros(40000, dtype=np.float32)
    samples = np.concatenate([make_noise(48000, 1), pause, make_noise(20000, 2)])
    for resets in (False, True):
        [found] = recognise(folder, "fp32", [samples], resets)["found"]
        expected = recognise_here(folder, "fp32", samples, resets)
        check(found, expected)
        assert sum(len(segment["tokens"]) for segment in expected) > 20


@pytest.mark.slow
def test_weights_outside_a_graph(recognise, bundle, tmp_path):
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    path = folder / "encoder.onnx"
    model = onnx.load(path)
    path.unlink()
    outside = {"save_as_external_data": True, "location": "encoder.onnx.data"}
    onnx.save(model, path, size_threshold=1024, **outside)
    assert (folder / "encoder.onnx.data").stat().st_size > 1024
    write_sha256sums(folder)
    [found] = recognise(folder, "fp32", SIGNALS[:1])["found"]
    check(found, recognise_here(bundle, "fp32", SIGNALS[0]))


@pytest.mark.slow
def test_a_damaged_graph_is_named(recognise, bundle, tmp_path):
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    (folder / "joiner.onnx").write_bytes(b"no graph")
    found = recognise(folder, "fp32", [])
    assert found["kind"] == "BundleError"
    assert found["error"].startswith("joiner.onnx: does not match SHA256SUMS")
    write_sha256sums(folder)
    found = recognise(folder, "fp32", [])
    assert found["kind"] == "BundleError"
    assert found["error"].startswith("joiner.onnx: onnxruntime-web cannot load it")
    assert recognise(folder, "int2", [])["error"].endswith("choose one of fp32, int8")
