"""The bundle in sherpa-onnx, in a process of its own: same tokens and times as in streaming/."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

import export.sherpa
import streaming
from export.errors import ExportError
from export.sherpa import compare_with_sherpa, decode_with_sherpa, pad_samples
from streaming.bundle import read_bundle, write_sha256sums
from tests.export.conftest import KINDS, make_speech

pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is in the extra [dev]")


def assert_same(bundle, precision, samples):
    row = compare_with_sherpa(bundle, samples, precision)
    assert row["passed"], row
    assert row["max_error"] < 1e-4
    seconds = sum(len(utterance) for utterance in samples) / 16000
    assert 2 < row["tokens"] / seconds < 23, "wanted: a mix of blanks and tokens"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_same_tokens_and_times(kind, precision, bundles):
    assert_same(
        bundles[kind], precision, [make_speech(8000 + 2777 * seed, seed) for seed in range(12)]
    )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_same_tokens_over_200_utterances(kind, precision, bundles):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3000, 80000, 200)
    assert_same(bundles[kind], precision, [make_speech(n, i) for i, n in enumerate(lengths)])


def test_other_tokens_are_counted(bundles, speech, monkeypatch):
    right = export.sherpa.decode_with_sherpa(bundles["lstm"], speech, "fp32")
    first = right.results[0]
    first = dataclasses.replace(first, tokens=[*first.tokens[:-1], " no"])
    wrong = dataclasses.replace(right, results=[first, *right.results[1:]])
    monkeypatch.setattr(export.sherpa, "decode_with_sherpa", lambda *_: wrong)
    row = compare_with_sherpa(bundles["lstm"], speech, "fp32")
    assert not row["passed"]
    assert row["different"] == [0]
    assert row["token_agreement"] == pytest.approx(1 - 1 / row["tokens"])


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
