"""Greedy search as sherpa-onnx loops: one stream, one frame, one label at a time."""

from __future__ import annotations

import numpy as np

from streaming.search import GreedyState, Token


def search_frames(session, encoded, state: GreedyState, blanks, max_symbols):
    """encoded (T', J) of one stream -> its new tokens and the next state."""
    memory = tuple(part[None] for part in state.memory)
    predicted, trailing, tokens = state.predicted[None], state.num_trailing_blanks, []
    for t, frame in enumerate(encoded):
        trailing += 1
        for _ in range(max_symbols):
            logits = session.join(frame[None], predicted)[0].astype(np.float64)
            best = int(logits.argmax())
            if best in blanks:
                break
            log_prob = logits[best] - np.log(np.exp(logits).sum())
            tokens.append(Token(best, state.num_frames + t, log_prob))
            predicted, memory = session.predict(np.array([best]), memory)
            trailing = 0
    memory = tuple(part[0] for part in memory)
    return tokens, GreedyState(memory, predicted[0], state.num_frames + len(encoded), trailing)
