"""Greedy transducer search, frame by frame; the state is small and of constant size.

Letters: N streams, T' encoder frames, J joiner width.

    for each frame:  up to max_symbols times:  token = argmax joiner(encoded, predicted)
                     blank or <unk>: next frame      else: emit, predict from the last labels

sherpa-onnx's greedy search is the case max_symbols = 1, <unk> counting as blank there as here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streaming.features import FloatArray
from streaming.session import LabelArray, Session


@dataclass(frozen=True)
class GreedyState:
    """What the search carries from chunk to chunk.

    labels (context_size,): the last labels, [-1, .., -1, blank] at the start.
    predicted (J,): the predictor's answer to them.
    num_frames: encoder frames searched; num_trailing_blanks: how many of them since a token.
    """

    labels: LabelArray
    predicted: FloatArray
    num_frames: int = 0
    num_trailing_blanks: int = 0


@dataclass(frozen=True)
class Token:
    """A token id and the encoder frame that emitted it."""

    index: int
    frame: int


def initial_search(session: Session) -> GreedyState:
    """The state before the first frame: no labels yet."""
    info = session.info
    labels = np.array([-1] * (info.context_size - 1) + [info.blank_id], dtype=np.int64)
    return GreedyState(labels, session.predict(labels[None])[0])


def greedy_search(
    session: Session,
    encoded: FloatArray,
    states: Sequence[GreedyState],
    max_symbols: int,
    blanks: frozenset[int],
) -> tuple[list[list[Token]], list[GreedyState]]:
    """Searches encoded (N, T', J); returns the new tokens and the next state of each stream.

    blanks: the ids that emit nothing (blank and <unk>).
    """
    labels = np.stack([state.labels for state in states])
    predicted = np.stack([state.predicted for state in states])
    trailing = [state.num_trailing_blanks for state in states]
    tokens: list[list[Token]] = [[] for _ in states]
    for t in range(encoded.shape[1]):
        active = list(range(len(states)))
        trailing = [count + 1 for count in trailing]
        for _ in range(max_symbols):
            best = session.join(encoded[active, t], predicted[active]).argmax(axis=1)
            emitted = [(n, int(b)) for n, b in zip(active, best, strict=True) if b not in blanks]
            if not emitted:
                break
            for n, token in emitted:
                tokens[n].append(Token(token, states[n].num_frames + t))
                labels[n] = [*labels[n, 1:], token]
                trailing[n] = 0
            active = [n for n, _ in emitted]
            predicted[active] = session.predict(labels[active])
    num_frames = encoded.shape[1]
    return tokens, [
        GreedyState(labels[n], predicted[n], state.num_frames + num_frames, trailing[n])
        for n, state in enumerate(states)
    ]
