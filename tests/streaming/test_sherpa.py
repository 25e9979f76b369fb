"""sherpa-onnx as the oracle, in a subprocess: it ends the whole process on a bundle it dislikes."""

import json
import subprocess
import sys

import numpy as np
import pytest

import streaming
from streaming.features import compute_features
from tests.streaming.tiny_bundle import make_speech

pytest.importorskip("sherpa_onnx", reason="pip install sherpa-onnx to compare with it")

NUM_SOUNDS = 6
SCRIPT = """
import json, sys
import numpy as np, sherpa_onnx
folder, suffix, sounds = sys.argv[1:]
graph = {name: f"{folder}/{name}{suffix}" for name in ("encoder", "decoder", "joiner")}
recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
    tokens=f"{folder}/tokens.txt", num_threads=1, enable_endpoint_detection=True, **graph
)
rows = []
for samples in np.load(sounds):
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, samples)
    row = {"segments": [], "frames": np.asarray(stream.get_frames(0, 20)).tolist()}
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
        if recognizer.is_endpoint(stream):
            result = recognizer.get_result_all(stream)
            row["segments"].append([list(result.tokens), list(result.timestamps), result.text])
            recognizer.reset(stream)
    result = recognizer.get_result_all(stream)
    row["segments"].append([list(result.tokens), list(result.timestamps), result.text])
    rows.append(row)
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def sounds(info) -> np.ndarray:
    """Speech, 2.5 s of silence, speech: an end-point in the middle of each."""
    pause = np.zeros(40000, dtype=np.float32)
    return np.array(
        [
            np.concatenate([make_speech(24000, n), pause, make_speech(16000, 9 + n), pause])
            for n in range(NUM_SOUNDS)
        ]
    )


def decode_segments(recognizer, samples):
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, samples)
    segments = []
    # sherpa-onnx asks for one frame more than a chunk before it decodes the chunk.
    while stream.features.num_ready > recognizer.info.chunk_frames:
        recognizer.decode_stream(stream)
        if recognizer.is_endpoint(stream):
            segments.append(recognizer.get_result_all(stream))
            recognizer.reset(stream)
    return [*segments, recognizer.get_result_all(stream)]


@pytest.mark.parametrize(("precision", "suffix"), [("fp32", ".onnx"), ("int8", ".int8.onnx")])
def test_same_tokens_times_texts_and_features(bundle, tmp_path, sounds, info, precision, suffix):
    np.save(tmp_path / "sounds.npy", sounds)
    command = [sys.executable, "-c", SCRIPT, str(bundle), suffix, str(tmp_path / "sounds.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    recognizer = streaming.open_bundle(bundle, precision)
    for samples, row in zip(sounds, rows, strict=True):
        segments = decode_segments(recognizer, samples)
        assert len(segments) > 1
        for ours, (tokens, timestamps, text) in zip(segments, row["segments"], strict=True):
            assert ours.tokens == tokens
            np.testing.assert_allclose(ours.timestamps, timestamps, atol=1e-5)
            assert ours.text.lstrip("' ") == text.lstrip("' ")  # it drops leading punctuation
        frames = compute_features(samples, info.features)[:20]
        assert np.array_equal(np.array(row["frames"]).reshape(20, 80), frames)
