"""Greedy transducer search, frame by frame; the state is small and of constant size.

Letters: N streams, T' encoder frames, J joiner width.

    for each frame:  up to max_symbols times:  token = argmax joiner(encoded, predicted)
                     blank: next frame      else: emit, predict from the token

sherpa-onnx's greedy search is the case max_symbols = 1 of target sherpa_lstm, <unk> counting as
blank there as here, and max_symbols = 10 of target sherpa_nemo, where <unk> is a label, though
no result shows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streaming.bundle import BundleInfo
from streaming.features import FloatArray
from streaming.session import Memory, Session
from streaming.tokens import UNKNOWN


@dataclass(frozen=True)
class GreedyState:
    """What the search carries from chunk to chunk.

    memory: what the predictor remembers, arrays without the axis of the streams: the last labels
    (context_size,), or h and c of an LSTM (L, P). predicted (J,): its answer to the last label.
    num_frames: encoder frames searched; num_trailing_blanks: how many of them since a token.
    """

    memory: Memory
    predicted: FloatArray
    num_frames: int = 0
    num_trailing_blanks: int = 0


@dataclass(frozen=True)
class Token:
    """A token id and the encoder frame that emitted it."""

    index: int
    frame: int


def initial_search(session: Session) -> GreedyState:
    """The state before the first frame: the predictor has heard blank."""
    blank = np.array([session.info.blank_id], dtype=np.int64)
    predicted, memory = session.predict(blank, session.empty_memory())
    return GreedyState(tuple(part[0] for part in memory), predicted[0])


def silent_tokens(info: BundleInfo, symbols: Sequence[str]) -> frozenset[int]:
    """The ids that emit nothing: blank, and <unk> where sherpa-onnx takes it for blank too."""
    unknown = {i for i, symbol in enumerate(symbols) if symbol == UNKNOWN}
    return frozenset({info.blank_id, *(unknown if info.target == "sherpa_lstm" else ())})


def greedy_search(
    session: Session,
    encoded: FloatArray,
    states: Sequence[GreedyState],
    max_symbols: int,
    blanks: frozenset[int],
) -> tuple[list[list[Token]], list[GreedyState]]:
    """Searches encoded (N, T', J); returns the new tokens and the next state of each stream.

    blanks: the ids that emit nothing, see silent_tokens().
    """
    predicted = np.stack([state.predicted for state in states])
    memory = tuple(map(np.stack, zip(*(state.memory for state in states), strict=True)))
    trailing = [state.num_trailing_blanks for state in states]
    tokens: list[list[Token]] = [[] for _ in states]
    for t in range(encoded.shape[1]):
        active = list(range(len(states)))
        trailing = [count + 1 for count in trailing]
        for _ in range(max_symbols):
            # Almost always all streams, or the only one: without indices a frame takes 6 us less.
            some = slice(None) if len(active) == len(states) else active
            best = session.join(encoded[some, t], predicted[some]).argmax(axis=1)
            emitted = [(n, int(b)) for n, b in zip(active, best, strict=True) if b not in blanks]
            if not emitted:
                break
            for n, token in emitted:
                tokens[n].append(Token(token, states[n].num_frames + t))
                trailing[n] = 0
            active = [n for n, _ in emitted]
            labels = np.array([token for _, token in emitted], dtype=np.int64)
            if len(active) == len(states):
                predicted, memory = session.predict(labels, memory)
                continue
            before = tuple(part[active] for part in memory)
            predicted[active], after = session.predict(labels, before)
            for part, new in zip(memory, after, strict=True):
                part[active] = new
    num_frames = encoded.shape[1]
    return tokens, [
        GreedyState(
            tuple(part[n] for part in memory),
            predicted[n],
            state.num_frames + num_frames,
            trailing[n],
        )
        for n, state in enumerate(states)
    ]
