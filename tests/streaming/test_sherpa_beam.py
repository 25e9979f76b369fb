"""sherpa-onnx's modified beam search as the oracle, with hotwords and a blank penalty."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import streaming
from tests.streaming.tiny_bundle import make_speech

pytest.importorskip("sherpa_onnx", reason="pip install sherpa-onnx to compare with it")

# BUNDLE and SOUNDS: a real bundle, and recordings as .npy of equal length, to compare on too.
SCRIPT = """
import json, sys
import numpy as np, sherpa_onnx
folder, suffix, sounds, options = sys.argv[1:]
graph = {name: f"{folder}/{name}{suffix}" for name in ("encoder", "decoder", "joiner")}
recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
    tokens=f"{folder}/tokens.txt", num_threads=1, decoding_method="modified_beam_search",
    **graph, **json.loads(options)
)
rows = []
for samples in np.load(sounds):
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, samples)
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    result = recognizer.get_result_all(stream)
    rows.append([list(result.tokens), list(result.timestamps), list(result.ys_probs)])
print(json.dumps(rows))
"""


def ask_sherpa(bundle, suffix, sounds: Path, **options):
    command = [sys.executable, "-c", SCRIPT, str(bundle), suffix, str(sounds), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def decode(recognizer, samples):
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, samples)
    # sherpa-onnx asks for one frame more than a chunk before it decodes the chunk.
    while stream.features.num_ready > recognizer.info.chunk_frames:
        recognizer.decode_stream(stream)
    return recognizer.get_result_all(stream)


def compare(bundle, suffix, precision, sounds: Path, theirs, atol=1e-3, **ours):
    rows = ask_sherpa(bundle, suffix, sounds, **theirs)
    recognizer = streaming.open_bundle(
        bundle, precision, decoding_method="modified_beam_search", **ours
    )
    for samples, (tokens, timestamps, log_probs) in zip(np.load(sounds), rows, strict=True):
        result = decode(recognizer, samples)
        assert result.tokens == tokens
        np.testing.assert_allclose(result.timestamps, timestamps, atol=1e-5)
        np.testing.assert_allclose(result.log_probs, log_probs, atol=atol)
    return rows


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("beam") / "sounds.npy"
    np.save(path, [make_speech(64000, seed) for seed in range(6)])
    return path


@pytest.mark.parametrize(
    ("precision", "suffix", "paths"),
    [("fp32", ".onnx", 4), ("int8", ".int8.onnx", 4), ("fp32", ".onnx", 8)],
)
def test_same_tokens_times_and_log_probs(bundle, sounds, precision, suffix, paths):
    theirs = {"max_active_paths": paths, "temperature_scale": 2.0}
    rows = compare(
        bundle, suffix, precision, sounds, theirs, max_active_paths=paths, temperature_scale=2.0
    )
    assert sum(len(tokens) for tokens, *_ in rows) > 30


def test_same_tokens_with_hotwords_and_blank_penalty(bundle, sounds, tmp_path):
    """Pieces without a word-start mark, which sherpa-onnx would split from its letter."""
    phrases = ["' ' k :2.0", "' k k :1.0", "x y :5.0", "y z :5.0", "w w w :4.0", "p q r s :4.0"]
    file = tmp_path / "hotwords.txt"
    file.write_text("\n".join(phrases), encoding="utf-8")
    theirs = {"hotwords_file": str(file), "blank_penalty": 1.5}
    rows = ask_sherpa(bundle, ".onnx", sounds, **theirs)
    assert rows != ask_sherpa(bundle, ".onnx", sounds, blank_penalty=1.5)
    recognizer = streaming.open_bundle(
        bundle, "fp32", decoding_method="modified_beam_search", blank_penalty=1.5
    )
    ids = {symbol: i for i, symbol in enumerate(recognizer.symbols)}
    for line in phrases:
        phrase, _, score = line.partition(" :")
        tokens = tuple(ids[piece] for piece in phrase.split())
        recognizer.search.fusion.phrases += ((tokens, float(score)),)
    for samples, (tokens, timestamps, _) in zip(np.load(sounds), rows, strict=True):
        result = decode(recognizer, samples)
        assert result.tokens == tokens
        np.testing.assert_allclose(result.timestamps, timestamps, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif("BUNDLE" not in os.environ, reason="BUNDLE and SOUNDS name a real one")
@pytest.mark.parametrize(("precision", "suffix"), [("fp32", ".onnx"), ("int8", ".int8.onnx")])
def test_same_tokens_on_a_real_bundle(precision, suffix):
    sounds = Path(os.environ["SOUNDS"])
    theirs = {"temperature_scale": 1.0}
    atol = {"fp32": 1e-3, "int8": 0.1}[precision]  # onnxruntime of another version inside
    compare(os.environ["BUNDLE"], suffix, precision, sounds, theirs, atol)
