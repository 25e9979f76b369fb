"""Sizes of a chunk: what is asked for, what a batch is heard at, and one network at all of them."""

from __future__ import annotations

import pytest
import torch

from compress.models.chunks import ChunkDraw, check_chunks, parse_chunks, set_chunk_, to_frames
from compress.models.encoders import build_encoder
from streaming.errors import InputError
from streaming.features import SILENCE
from tests.models.test_streaming_equals_whole import (
    encode_in_chunks,
    small_conformer,
    small_lstm,
)
from tests.tiny_teacher import build_teacher

SIZES_MS = (80, 160, 320, 640)


@pytest.mark.parametrize("chunk_ms", SIZES_MS)
@pytest.mark.parametrize("kind", ["conformer", "lstm"])
def test_whole_with_a_chunk_of_one_pass_equals_the_stream_at_that_chunk(kind, chunk_ms):
    """Trained at 320 ms; 16 frames of left context are two chunks of 320 ms, eight of 80 ms."""
    torch.manual_seed(0)
    config = small_conformer(32, 16) if kind == "conformer" else small_lstm(32)
    encoder = build_encoder(config).eval()
    length, frames = 210, to_frames(chunk_ms)
    features = torch.full((2, 256, 80), SILENCE)
    features[:, :length] = torch.randn(2, length, 80) * 4 - 6
    with torch.no_grad():
        whole, logit_lengths = encoder(features, torch.tensor([length, length]), frames)
        own, _ = encoder(features, torch.tensor([length, length]))
        encoder.chunk_frames = frames
        chunked = encode_in_chunks(encoder, features)
    valid = int(logit_lengths[0])
    torch.testing.assert_close(whole[:, :valid], chunked[:, :valid], atol=1e-5, rtol=1e-5)
    differ = (whole[:, :valid] - own[:, :valid]).abs().max() > 1e-3
    assert differ == (kind == "conformer" and chunk_ms != 320)


def test_the_state_of_a_stream_is_the_same_at_every_chunk():
    shapes = set()
    for chunk_ms in SIZES_MS:
        model = set_chunk_(build_teacher(), to_frames(chunk_ms))
        assert model.encoder.chunk_frames == model.config.encoder.chunk_frames == chunk_ms // 10
        shapes.add(tuple(part.shape for part in model.encoder.initial_state(1)))
    assert len(shapes) == 1


def test_parse():
    assert parse_chunks("80,160, 320,640") == [80, 160, 320, 640]
    assert check_chunks([40960]) == [40960]
    assert check_chunks([]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100", "a chunk is a multiple of 40 ms, from 40 to 40960; got 100: try 80"),
        ("80,0", "from 40 to 40960; got 0: try 40"),
        ("-80", "got -80: try 40"),
        ("41000", "got 41000: try 40960"),
        ("80,160,80", "a chunk of 80 ms is asked for twice: name each once"),
        ("320ms", "--chunk-ms is milliseconds and commas, as in 80,160,320,640; got '320ms'"),
        ("", "got ''"),
        ("40,80,120,160,200,240,280,320,360", "9 chunk sizes: at most 8 go together"),
    ],
)
def test_what_cannot_be_a_chunk(text, message):
    with pytest.raises(InputError) as caught:
        parse_chunks(text)
    assert message in str(caught.value)


def test_every_chunk_has_its_turn_by_seed_and_step_alone():
    def draw(chunks_ms, seed):
        return [ChunkDraw(chunks_ms, seed).frames_at(step, own_frames=32) for step in range(400)]

    drawn = draw(SIZES_MS, 1)
    assert drawn == draw(SIZES_MS, 1) == draw((640, 160, 80), 1), "the network's own is one of them"
    assert drawn != draw(SIZES_MS, 2)
    counts = {frames: drawn.count(frames) for frames in set(drawn)}
    assert set(counts) == {8, 16, 32, 64}
    assert min(counts.values()) > 70, "a quarter each, give or take three deviations of 9"
    assert draw((), 1) == [32] * 400
