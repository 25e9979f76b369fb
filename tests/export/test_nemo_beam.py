"""Beam search over LSTM predictors: each hypothesis has a memory of its own."""

from __future__ import annotations

import numpy as np
import pytest

import streaming
from tests.export.conftest import KINDS, make_speech
from tests.reference.hypotheses import search_hypotheses

BEAM = {"decoding_method": "modified_beam_search"}


@pytest.fixture(scope="module")
def sounds():
    return [make_speech(16000, seed) for seed in range(4)]


def decode(recognizer, samples, piece=16000):
    stream = recognizer.create_stream()
    for start in range(0, len(samples), piece):
        stream.accept(samples[start : start + piece])
    stream.finish()
    return recognizer.get_result_all(stream)


@pytest.mark.parametrize("kind", KINDS)
def test_one_path_is_greedy_search_of_one_symbol(kind, nemo_bundles, sounds):
    greedy = streaming.open_bundle(nemo_bundles[kind], "fp32", max_symbols_per_frame=1)
    beam = streaming.open_bundle(nemo_bundles[kind], "fp32", max_active_paths=1, **BEAM)
    found = [decode(beam, samples) for samples in sounds]
    assert found == [decode(greedy, samples) for samples in sounds]
    assert sum(len(result.tokens) for result in found) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_what_whole_sequences_find_and_any_company(kind, nemo_bundles, sounds):
    recognizer = streaming.open_bundle(nemo_bundles[kind], "fp32", **BEAM)
    session, info = recognizer.session, recognizer.info
    rng = np.random.default_rng(0)
    width = info.tensors["joiner"]["inputs"][0]["shape"][1]
    encoded = rng.standard_normal((3, 24, width)).astype(np.float32)
    states = [recognizer.search.start() for _ in encoded]
    heard: list[list[int]] = [[] for _ in encoded]
    for chunk in np.split(encoded, [5, 16], axis=1):
        tokens, states = recognizer.search.advance(chunk, states)
        for found, new in zip(heard, tokens, strict=True):
            found += [token.index for token in new]
    for stream, found, state in zip(encoded, heard, states, strict=True):
        labels, *_ = search_hypotheses(session, stream, {info.blank_id}, 4, info.context_size)
        assert found + [token.index for token in state.pending] == list(labels)
    assert any(map(len, heard))


def test_cutting_and_a_reset(nemo_bundles, sounds):
    recognizer = streaming.open_bundle(nemo_bundles["lstm"], **BEAM)
    whole = decode(recognizer, sounds[0])
    assert whole.tokens
    assert decode(recognizer, sounds[0], 777) == whole
    stream = recognizer.create_stream()
    stream.accept(sounds[1])
    recognizer.reset(stream)
    assert stream.accept(sounds[0]) == recognizer.get_result(stream)
    stream.finish()
    assert recognizer.get_result_all(stream).tokens
