"""Chunk sizes: one network streams at any, and learns at several by hearing each batch at one.

Dynamic chunk training is of U2 (arXiv 2012.05481); there the size of a batch is any up to the whole
utterance, here one of a few, those that bundles will be made for. The left context stays what the
configuration says, so many frames before every chunk, whatever its size.               [ours]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.models.config import SUBSAMPLING
from compress.models.transducer import Transducer
from streaming.bundle import LIMITS
from streaming.errors import InputError

FRAME_MS = 10  # of features, in every preset
UNIT_MS = FRAME_MS * SUBSAMPLING
MOST_MS = FRAME_MS * LIMITS["chunk_frames"][1]
MOST_CHUNKS = 8


def parse_chunks(text: str) -> list[int]:
    """Milliseconds of "80,160,320". Raises InputError for anything that cannot be a chunk."""
    try:
        chunks_ms = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--chunk-ms is milliseconds and commas, as in 80,160,320,640; got {text!r}"
        ) from None
    return check_chunks(chunks_ms)


def check_chunks(chunks_ms: list[int]) -> list[int]:
    """The same again. Raises InputError for a chunk that no network has, and for one said twice."""
    for chunk_ms in chunks_ms:
        if chunk_ms % UNIT_MS or not 0 < chunk_ms <= MOST_MS:
            below = chunk_ms // UNIT_MS * UNIT_MS
            nearest = min(max(below, UNIT_MS), MOST_MS)
            raise InputError(
                f"a chunk is a multiple of {UNIT_MS} ms, from {UNIT_MS} to {MOST_MS}; "
                f"got {chunk_ms}: try {nearest}"
            )
    if len(set(chunks_ms)) < len(chunks_ms):
        twice = next(chunk_ms for chunk_ms in chunks_ms if chunks_ms.count(chunk_ms) > 1)
        raise InputError(f"a chunk of {twice} ms is asked for twice: name each once")
    if len(chunks_ms) > MOST_CHUNKS:
        raise InputError(f"{len(chunks_ms)} chunk sizes: at most {MOST_CHUNKS} go together")
    return chunks_ms


def to_frames(chunk_ms: int) -> int:
    """Feature frames: 320 ms are 32."""
    return chunk_ms // FRAME_MS


def set_chunk_(model: Transducer, chunk_frames: int) -> Transducer:
    """In place: the same weights, hearing `chunk_frames` at a time. Returns the model."""
    encoder = model.config.encoder.model_copy(update={"chunk_frames": chunk_frames})
    model.config = model.config.model_copy(update={"encoder": encoder})
    model.encoder.chunk_frames = chunk_frames
    return model


@dataclass(frozen=True)
class ChunkDraw:
    """The chunk that a step's batch is heard at: one of `chunks_ms`, or the network's own.

    Its own always takes part, because that is what it is evaluated at. The choice depends on (seed,
    step) alone, so a resumed training draws what the killed one would have.
    """

    chunks_ms: Sequence[int] = ()
    seed: int = 0

    def frames_at(self, step: int, own_frames: int) -> int:
        """Feature frames of a step's chunk, of a network whose own has `own_frames`."""
        sizes = sorted({own_frames, *map(to_frames, self.chunks_ms)})
        return int(np.random.default_rng([self.seed, 4, step]).choice(sizes))
