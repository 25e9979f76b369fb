import io

import numpy as np
import pytest

from streaming.errors import AudioError
from streaming.pcm import decode_pcm, read_pcm


def test_integers_and_floats():
    assert decode_pcm(b"\x00\x40\x00\x80").tolist() == [0.5, -1.0]
    assert decode_pcm(np.array([0.25, -2], "<f4").tobytes(), "f32le").tolist() == [0.25, -2.0]
    assert decode_pcm(b"").shape == (0,)


def test_a_pipe_is_read_in_seconds(speech):
    data = (speech * 32767).astype("<i2")
    blocks = list(read_pcm(io.BytesIO(data.tobytes()), 12000))
    assert [len(block) for block in blocks] == [12000, 12000, 8000]
    np.testing.assert_allclose(np.concatenate(blocks), data / 32768)


@pytest.mark.parametrize(
    ("data", "encoding", "fix"),
    [(b"abc", "s16le", "2 bytes a sample"), (b"abc", "f32le", "4 bytes"), (b"", "mp3", "f32le")],
)
def test_what_is_refused(data, encoding, fix):
    with pytest.raises(AudioError, match=fix):
        decode_pcm(data, encoding)
