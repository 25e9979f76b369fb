"""Small inputs that are wrong on purpose, made by code: where every fuzzing begins."""

import io
import struct
from collections.abc import Iterator

import numpy as np
import soundfile


def make_wav(
    samples: bytes = b"\0\1" * 50,
    sample_rate: int = 16000,
    channels: int = 1,
    bits: int = 16,
    kind: int = 1,
    size: int | None = None,
    before: bytes = b"",
) -> bytes:
    """A wav by hand. kind: 1 integers, 3 floats, 6 A-law. size: what its header claims."""
    frame = channels * bits // 8
    rate = sample_rate * frame
    form = struct.pack("<HHIIHH", kind, channels, sample_rate, rate % 2**32, frame % 2**16, bits)
    size = len(samples) if size is None else size
    body = b"fmt " + struct.pack("<I", len(form)) + form + before
    body += b"data" + struct.pack("<I", size) + samples
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def encode(format: str, subtype: str | None = None) -> bytes:  # noqa: A002 (soundfile's word)
    file = io.BytesIO()
    soundfile.write(file, np.linspace(-1, 1, 2000), 16000, format=format, subtype=subtype)
    return file.getvalue()


def nasty_sounds() -> Iterator[tuple[str, bytes]]:
    """Names and bytes; some are good, most are not."""
    yield "good", make_wav()
    yield "empty", b""
    yield "only RIFF", b"RIFF"
    yield "text", b"turn on the light"
    yield "zeros", bytes(64)
    for rate in (0, 1, 999, 44101, 767999, 768001, 2**31 - 1, 2**32 - 1):
        yield f"rate {rate}", make_wav(sample_rate=rate)
    for channels in (0, 2, 64, 65, 1024, 65535):
        yield f"channels {channels}", make_wav(bytes(4096), channels=channels)
    for bits in (0, 1, 8, 24, 32, 64, 65535):
        yield f"bits {bits}", make_wav(bits=bits)
    for kind in (0, 2, 3, 6, 7, 17, 0xFFFE, 0xFFFF):
        yield f"kind {kind}", make_wav(kind=kind)
    for size in (0, 1, 99, 101, 0x7FFFF000, 0xFFFFFFFF):
        yield f"size {size}", make_wav(size=size)
    yield "not a number", make_wav(np.full(50, np.nan, "<f4").tobytes(), kind=3, bits=32)
    yield "infinite", make_wav(np.full(50, np.inf, "<f4").tobytes(), kind=3, bits=32)
    yield "huge", make_wav(np.full(50, 3e38, "<f4").tobytes(), kind=3, bits=32)
    yield "beyond one", make_wav(np.full(50, 1.5, "<f4").tobytes(), kind=3, bits=32)
    yield "a chunk before", make_wav(before=b"LIST\5\0\0\0hello\0")
    yield "an endless chunk", make_wav(before=b"LIST\xff\xff\xff\xff")
    yield "no end of chunks", make_wav(before=b"junk\0\0\0\0" * 100)
    for format, subtype in (("FLAC", None), ("OGG", "VORBIS"), ("AIFF", None), ("MP3", None)):  # noqa: A001
        data = encode(format, subtype)
        yield format, data
        yield f"half of {format}", data[: len(data) // 2]
        yield f"bent {format}", data[:60] + b"\xff" * 20 + data[80:]


MESSAGES = [
    b'{"config": {"sample_rate": 16000}}',
    b'{"config": {"sample_rate": 0}}',
    b'{"config": {"sample_rate": 1e999, "words": []}}',
    b'{"config": {"sample_rate": ' + b"9" * 5000 + b"}}",
    b'{"config": {"sample_rate": NaN}}',
    b'{"config": {"\\ud800": "\\udfff"}}',
    b'{"config": null}',
    b'{"config": {"max_alternatives": {"a": 1}}}',
    b'{"eof" : 1}',
    b'{"\\u2028\\n": 1}',
    b'{"eof": 1',
    b"[" * 70000,
    b'{"a":' * 5000,
    b"null",
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
]
