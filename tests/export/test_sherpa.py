"""The bundle in sherpa-onnx, in a process of its own: same tokens and times as in streaming/."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import streaming
from export.errors import ExportError
from export.sherpa import decode_with_sherpa, pad_samples
from streaming.bundle import read_bundle, write_sha256sums
from tests.export.conftest import KINDS, make_speech

pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is in the extra [dev]")


def decode(bundle, precision, samples):
    recognizer = streaming.open_bundle(bundle, precision)
    results = []
    for utterance in samples:
        stream = recognizer.create_stream()
        stream.accept(utterance)
        stream.finish()
        results.append(recognizer.get_result_all(stream))
    return results


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_same_tokens_and_times(kind, precision, bundles):
    samples = [make_speech(8000 + 2777 * seed, seed) for seed in range(12)]
    ours = decode(bundles[kind], precision, samples)
    theirs = decode_with_sherpa(bundles[kind], samples, precision)
    num_tokens = sum(len(result.tokens) for result in ours)
    num_frames = sum(result.seconds for result in ours) / 0.04
    assert 0.1 < num_tokens / num_frames < 0.9, "wanted: a mix of blanks and tokens"
    assert len({token for result in ours for token in result.tokens}) > 5
    for mine, other in zip(ours, theirs, strict=True):
        assert [t.replace("▁", " ") for t in mine.tokens] == other.tokens
        np.testing.assert_allclose(mine.timestamps, other.timestamps, atol=1e-4)


def test_a_dead_process_is_an_error_with_the_fix(copied_bundle, speech):
    path = copied_bundle / "encoder.onnx"
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    write_sha256sums(copied_bundle)
    with pytest.raises(ExportError, match=r"sherpa-onnx ended with .*validate_bundle"):
        decode_with_sherpa(copied_bundle, speech[:1], "fp32")


def test_padding_holds_one_frame_more_than_the_last_chunk(bundles):
    info = read_bundle(bundles["lstm"])
    for num_samples in (1, 160, 2000, 12345):
        padded = pad_samples(info, np.zeros(num_samples, dtype=np.float32))
        stream = streaming.open_bundle(info.folder).create_stream()
        stream.accept(np.zeros(num_samples, dtype=np.float32))
        stream.finish()
        num_chunks = stream.search.num_frames * info.subsampling // info.chunk_frames
        ready = (len(padded) - 200) // 160 + 1 + 1  # 25 ms frames centred on their shift
        assert num_chunks * info.chunk_frames < ready <= (num_chunks + 1) * info.chunk_frames
