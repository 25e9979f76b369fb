"""Greedy transducer search that asks the joiner about all that is left of a chunk at once.

Letters: N streams, T' encoder frames, J joiner width, V tokens incl. blank, R rows of a call.

    until no stream emits:  best = argmax joiner(the frames that are left, predicted)
                            the first frame whose best is no blank emits; predict from its token

Between two emissions the predictor's answer does not change, so these are the tokens of the loop
over frames (tests/reference/frames.py), with 1 + emissions calls of the joiner instead of T'. The
idea is "label looping" of 2406.06220, which batches utterances; here a chunk is the batch.

Nor do a language model's opinion and the hotwords' gains change between two emissions: they are
added to the frames' log probabilities (fusion.py).

sherpa-onnx's greedy search is the case max_symbols = 1 of target sherpa_lstm, <unk> counting as
blank there as here, and max_symbols = 10 of target sherpa_nemo, where <unk> is a label, though
no result shows it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from streaming.features import FloatArray
from streaming.search.fusion import Fusion, FusionState
from streaming.search.hotwords import Phrases
from streaming.search.token import Token
from streaming.session import Array, Memory, Session

BURST = 2  # labels of one frame


@dataclass(frozen=True)
class GreedyState:
    """What the search carries from chunk to chunk; greedy tokens are certain, none is pending.

    memory: what the predictor remembers, arrays without the axis of the streams: the last labels
    (context_size,), or h and c of an LSTM (L, P). predicted (J,): its answer to the last label.
    """

    memory: Memory
    predicted: FloatArray
    num_frames: int = 0
    num_trailing_blanks: int = 0
    fusion: FusionState = field(default_factory=FusionState)

    @property
    def hotwords(self) -> Phrases:
        return self.fusion.phrases

    @property
    def pending(self) -> tuple[Token, ...]:
        return ()


class Cursor:
    """Where one stream is in the chunk: the frame that is asked about next, and what came out."""

    def __init__(self, state: GreedyState) -> None:
        self.memory, self.predicted, self.fusion = state.memory, state.predicted, state.fusion
        self.first_frame = state.num_frames
        self.frame = 0
        self.num_symbols = 0  # emitted at this frame
        self.tokens: list[Token] = []

    def move_to(self, frame: int) -> None:
        if frame != self.frame:
            self.frame, self.num_symbols = frame, 0

    def emit(self, index: int, log_prob: float, max_symbols: int) -> None:
        self.tokens.append(Token(index, self.first_frame + self.frame, log_prob))
        self.num_symbols += 1
        if self.num_symbols == max_symbols:
            self.move_to(self.frame + 1)

    def close(self, state: GreedyState, num_frames: int) -> GreedyState:
        """The state after the chunk."""
        total = self.first_frame + num_frames
        trailing = state.num_trailing_blanks + num_frames
        if self.tokens:
            trailing = total - self.tokens[-1].frame - 1
        return GreedyState(self.memory, self.predicted, total, trailing, self.fusion)


class GreedySearch:
    """The best token of every frame.

    blanks: the ids that emit nothing, see silent_tokens(). max_symbols: most tokens of a frame.
    """

    def __init__(
        self,
        session: Session,
        blanks: Iterable[int],
        max_symbols: int,
        fusion: Fusion | None = None,
    ) -> None:
        self.session = session
        self.fusion = fusion or Fusion(session.info.blank_id)
        self.max_symbols = max_symbols
        self.blanks = frozenset(blanks)

    def start(self, hotwords: Phrases = ()) -> GreedyState:
        """The state before the first frame: the predictor has heard blank."""
        blank = np.array([self.session.info.blank_id], dtype=np.int64)
        predicted, memory = self.session.predict(blank, self.session.empty_memory())
        fusion = self.fusion.start(hotwords)
        return GreedyState(tuple(part[0] for part in memory), predicted[0], fusion=fusion)

    def resume(self, state: GreedyState) -> GreedyState:
        """The state of the next segment: it counts from zero, and the last labels stay known."""
        fusion = self.fusion.start(state.hotwords)
        return replace(state, num_frames=0, num_trailing_blanks=0, fusion=fusion)

    def skip(self, state: GreedyState, num_frames: int) -> GreedyState:
        """The state after frames of silence that were left out (streaming/gate.py)."""
        return replace(
            state,
            num_frames=state.num_frames + num_frames,
            num_trailing_blanks=state.num_trailing_blanks + num_frames,
        )

    def advance(
        self, encoded: FloatArray, states: Sequence[GreedyState]
    ) -> tuple[list[list[Token]], list[GreedyState]]:
        """Searches encoded (N, T', J); returns the new tokens and the next state of each stream."""
        num_frames = encoded.shape[1]
        cursors = [Cursor(state) for state in states]
        while active := [n for n, cursor in enumerate(cursors) if cursor.frame < num_frames]:
            labels = self._emit(encoded, cursors, active)
            if labels:
                self._predict([cursors[n] for n in labels], list(labels.values()))
        pairs = zip(cursors, states, strict=True)
        return [c.tokens for c in cursors], [c.close(state, num_frames) for c, state in pairs]

    def _emit(
        self, encoded: FloatArray, cursors: Sequence[Cursor], active: Sequence[int]
    ) -> dict[int, int]:
        """Moves each cursor to the first label in the frames it asks about, or behind them.

        Returns stream -> label.
        """
        parts = [encoded[n, cursors[n].frame :][: self._num_rows(cursors[n])] for n in active]
        logits = self._join(parts, [cursors[n].predicted for n in active])
        scores = self._score(logits, [cursors[n].fusion for n in active], parts)
        best: list[int] = scores.argmax(axis=1).tolist()
        labels, start = {}, 0
        for n, part in zip(active, parts, strict=True):
            cursor, end, row = cursors[n], start + len(part), start
            while row < end and best[row] in self.blanks:
                row += 1
            cursor.move_to(cursor.frame + row - start)
            if row < end:
                labels[n] = best[row]
                log_prob = self.fusion.confidence(logits[row], best[row])
                cursor.emit(best[row], log_prob, self.max_symbols)
                cursor.fusion, _ = self.fusion.follow(cursor.fusion, best[row])
            start = end
        return labels

    def _num_rows(self, cursor: Cursor) -> int | None:
        """All frames that are left. One, if they mind each other, and while a frame gives out a
        burst of labels, after each of which all that is known of the others would be of no use."""
        one = cursor.num_symbols >= BURST or not self.session.joins_rows_alone
        return 1 if one else None

    def _score(
        self, logits: FloatArray, states: Sequence[FusionState], parts: Sequence[FloatArray]
    ) -> FloatArray:
        """(R, V), the larger the likelier; as they are when nothing else has a say."""
        if not any(map(self.fusion.has_say, states)):
            return self.fusion.penalise(logits)
        counts = [len(part) for part in parts]
        gains = self.fusion.gains(states, logits.shape[1])
        return self.fusion.scores(logits, states, counts) + np.repeat(gains, counts, axis=0)

    def _join(self, parts: list[FloatArray], predicted: list[FloatArray]) -> FloatArray:
        """Frames (.., J) of each stream with its prediction (J,) -> logits (R, V)."""
        if len(parts) == 1:
            return self.session.join(parts[0], predicted[0][None].repeat(len(parts[0]), axis=0))
        rows = np.stack(predicted).repeat([len(part) for part in parts], axis=0)
        return self.session.join(np.concatenate(parts), rows)

    def _predict(self, cursors: list[Cursor], labels: list[int]) -> None:
        memory = tuple(map(stack, zip(*(c.memory for c in cursors), strict=True)))
        predicted, after = self.session.predict(np.array(labels, dtype=np.int64), memory)
        for n, cursor in enumerate(cursors):
            cursor.predicted = predicted[n]
            cursor.memory = tuple(part[n] for part in after)


def stack(parts: Sequence[Array]) -> Array:
    """np.stack; of one array, as in a stream alone, a view, which takes a tenth of the time."""
    return parts[0][None] if len(parts) == 1 else np.stack(parts)
