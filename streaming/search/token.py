"""What every search speaks of: tokens, the state between two chunks, and who counts as silent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from streaming.bundle import BundleInfo
from streaming.features import FloatArray
from streaming.search.hotwords import Phrases
from streaming.tokens import UNKNOWN


@dataclass(frozen=True)
class Token:
    """A token id, the encoder frame that emitted it, and log P of it there, in nats."""

    index: int
    frame: int
    log_prob: float = field(default=0.0, compare=False)


class SearchState(Protocol):
    """What a search carries from chunk to chunk, of constant size.

    pending: the best guess at the tokens after those that are certain. num_frames: encoder frames
    searched since the segment began; num_trailing_blanks: how many of them since the last token.
    hotwords: the stream's own.
    """

    @property
    def hotwords(self) -> Phrases: ...

    @property
    def pending(self) -> tuple[Token, ...]: ...

    @property
    def num_frames(self) -> int: ...

    @property
    def num_trailing_blanks(self) -> int: ...


class Search(Protocol):
    """start() a stream, advance() many by a chunk, resume() one in its next segment.

    skip() counts frames of silence that nobody decoded.

    A state handed to advance() or resume() is one of this search's own.
    """

    def start(self, hotwords: Phrases = ()) -> Any: ...

    def resume(self, state: Any) -> Any: ...

    def skip(self, state: Any, num_frames: int) -> Any: ...

    def advance(
        self, encoded: FloatArray, states: Sequence[Any]
    ) -> tuple[list[list[Token]], list[Any]]: ...


def silent_tokens(info: BundleInfo, symbols: Sequence[str]) -> frozenset[int]:
    """The ids that emit nothing: blank, and <unk> where sherpa-onnx takes it for blank too."""
    unknown = {i for i, symbol in enumerate(symbols) if symbol == UNKNOWN}
    return frozenset({info.blank_id, *(unknown if info.target == "sherpa_lstm" else ())})


def log_softmax_at(logits: FloatArray, label: int) -> float:
    """log softmax(logits)[label] of one frame (V,), in nats."""
    peak = logits.max()
    return float(logits[label] - peak) - math.log(np.exp(logits - peak).sum())


def log_softmax(logits: FloatArray) -> FloatArray:
    """log softmax over the last axis, in nats."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalised: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised
