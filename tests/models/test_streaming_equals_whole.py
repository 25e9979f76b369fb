"""A whole masked utterance and its chunks give the same encoding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.models.config import LstmConfig, uniform_conformer
from compress.models.encoders import build_encoder
from streaming.features import SILENCE


def small_conformer(chunk_frames: int, left_context: int):
    return uniform_conformer(
        num_layers=2,
        width=16,
        num_heads=2,
        feed_forward=24,
        joint_width=12,
        subsampling_width=20,
        kernel_size=5,
        chunk_frames=chunk_frames,
        left_context=left_context,
    )


def small_lstm(chunk_frames: int):
    return LstmConfig(
        subsampling_width=20, width=16, joint_width=12, hidden=[14, 18], chunk_frames=chunk_frames
    )


def encode_in_chunks(encoder, features):
    state = encoder.initial_state(features.shape[0])
    encoded = []
    for chunk in features.split(encoder.chunk_frames, dim=1):
        part, state = encoder.streaming_forward(chunk, state)
        encoded.append(part)
    return torch.cat(encoded, dim=1)


@pytest.mark.parametrize("kind", ["conformer", "lstm"])
@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=3),
    chunk=st.sampled_from([4, 8, 16, 32]),
    left_context=st.integers(1, 12),
    seed=st.integers(0, 2**16),
)
def test_chunks_equal_whole(kind, lengths, chunk, left_context, seed):
    torch.manual_seed(seed)
    config = small_conformer(chunk, left_context) if kind == "conformer" else small_lstm(chunk)
    encoder = build_encoder(config).eval()
    feature_lengths = torch.tensor(lengths)
    features = torch.randn(len(lengths), max(lengths), 80) * 4 - 6
    for row, length in enumerate(lengths):
        features[row, length:] = SILENCE
    with torch.no_grad():
        whole, logit_lengths = encoder(features, feature_lengths)
        for row, length in enumerate(lengths):
            padded = torch.full((1, -(-length // chunk) * chunk, 80), SILENCE)
            padded[0, :length] = features[row, :length]
            chunked = encode_in_chunks(encoder, padded)
            valid = int(logit_lengths[row])
            assert chunked.shape[1] * 4 == padded.shape[1]
            torch.testing.assert_close(whole[row, :valid], chunked[0, :valid], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["conformer", "lstm"])
def test_batch_of_streams_equals_single_streams(kind):
    torch.manual_seed(0)
    config = small_conformer(8, 6) if kind == "conformer" else small_lstm(8)
    encoder = build_encoder(config).eval()
    features = torch.randn(3, 40, 80)
    with torch.no_grad():
        together = encode_in_chunks(encoder, features)
        for row in range(3):
            alone = encode_in_chunks(encoder, features[row : row + 1])
            torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["conformer", "lstm"])
def test_state_keeps_its_size(kind):
    config = small_conformer(8, 6) if kind == "conformer" else small_lstm(8)
    encoder = build_encoder(config).eval()
    before = encoder.initial_state(2)
    after = encoder.streaming_forward(torch.zeros(2, 8, 80), before)[1]
    assert [part.shape for part in before] == [part.shape for part in after]
