"""Modified beam search: several hypotheses a stream, at most one label a frame.

Letters: N streams, T' encoder frames, J joiner width, V tokens incl. blank, K max_active_paths,
R hypotheses of all streams together.

    at every frame  scores (R, V) = joiner(frame, predicted), one call for all streams
                    each stream keeps the K best of its hypotheses + one token, blank included
                    hypotheses that became the same labels are one: their probabilities add up
    after a chunk   labels that all hypotheses share are certain; a state holds what differs

That is the search of icefall and sherpa-onnx (online-transducer-modified-beam-search-decoder.cc):
<unk> counts as blank where it does there, hotwords earn their boost after the K are chosen, the
best hypothesis is that of the largest log probability per label, the predictor's context counted.
Where it differs: docs/decisions/0033-searches.md.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from streaming.features import FloatArray
from streaming.search.fusion import Fusion, FusionState
from streaming.search.hotwords import Phrases
from streaming.search.token import Token
from streaming.session import Memory, Session

MAX_PENDING = 100  # tokens in which hypotheses may differ: half a minute of speech


@dataclass(frozen=True)
class Hypothesis:
    """Labels after those that are certain, and what is needed to go on from them.

    log_prob: of all its paths that were followed, boosts included, relative to BeamState.log_prob.
    memory, predicted: as in GreedyState.
    """

    tokens: tuple[Token, ...]
    log_prob: float
    memory: Memory
    predicted: FloatArray
    fusion: FusionState
    num_trailing_blanks: int = 0

    @property
    def labels(self) -> tuple[int, ...]:
        return tuple(token.index for token in self.tokens)


@dataclass(frozen=True)
class BeamState:
    """What the search carries from chunk to chunk: hypotheses, the best first.

    log_prob: of the likeliest hypothesis, which itself says 0. num_certain: the labels of this
    segment before those of the hypotheses.
    """

    hypotheses: tuple[Hypothesis, ...]
    log_prob: float = 0.0
    num_certain: int = 0
    num_frames: int = 0

    @property
    def pending(self) -> tuple[Token, ...]:
        return self.hypotheses[0].tokens

    @property
    def num_trailing_blanks(self) -> int:
        return self.hypotheses[0].num_trailing_blanks

    @property
    def hotwords(self) -> Phrases:
        return self.hypotheses[0].fusion.phrases


class BeamSearch:
    """The K best hypotheses at every frame; with K = 1 the greedy search of one token a frame.

    blanks: the ids that emit nothing, see silent_tokens().
    """

    def __init__(
        self,
        session: Session,
        blanks: Iterable[int],
        max_active_paths: int = 4,
        fusion: Fusion | None = None,
    ) -> None:
        self.session = session
        self.max_active_paths = max_active_paths
        self.fusion = fusion or Fusion(session.info.blank_id)
        self._silent = frozenset(blanks)
        self._context_size = session.info.context_size

    def start(self, hotwords: Phrases = ()) -> BeamState:
        """The state before the first frame: one hypothesis without labels."""
        blank = np.array([self.session.info.blank_id], dtype=np.int64)
        predicted, memory = self.session.predict(blank, self.session.empty_memory())
        first = tuple(part[0] for part in memory)
        return BeamState((Hypothesis((), 0.0, first, predicted[0], self.fusion.start(hotwords)),))

    def resume(self, state: BeamState) -> BeamState:
        """The state of the next segment: what the predictor remembers stays, scores begin anew.

        Hypotheses that the predictor cannot tell apart become one.
        """
        fusion = self.fusion.start(state.hotwords)
        kept: dict[bytes, Hypothesis] = {}
        for old in state.hypotheses:
            key = b"".join(part.tobytes() for part in old.memory)
            new = Hypothesis((), old.log_prob, old.memory, old.predicted, fusion)
            kept[key] = add_up(kept[key], new.log_prob) if key in kept else new
        return self._sort(BeamState(tuple(kept.values())))

    def skip(self, state: BeamState, num_frames: int) -> BeamState:
        """The state after frames of silence that were left out (streaming/gate.py)."""
        hypotheses = (
            replace(h, num_trailing_blanks=h.num_trailing_blanks + num_frames)
            for h in state.hypotheses
        )
        return replace(
            state, hypotheses=tuple(hypotheses), num_frames=state.num_frames + num_frames
        )

    def advance(
        self, encoded: FloatArray, states: Sequence[BeamState]
    ) -> tuple[list[list[Token]], list[BeamState]]:
        """Searches encoded (N, T', J); returns the new certain tokens and each next state."""
        beams = [list(state.hypotheses) for state in states]
        for t in range(encoded.shape[1]):
            numbers = [state.num_frames + t for state in states]
            beams = self._search_frame(encoded[:, t], beams, numbers)
        closed = [
            self._close(state, beam, encoded.shape[1])
            for state, beam in zip(states, beams, strict=True)
        ]
        return [tokens for tokens, _ in closed], [state for _, state in closed]

    def _search_frame(
        self, frame: FloatArray, beams: list[list[Hypothesis]], numbers: Sequence[int]
    ) -> list[list[Hypothesis]]:
        """frame (N, J), its number in each stream -> the next beams."""
        rows = [hypothesis for beam in beams for hypothesis in beam]
        counts = [len(beam) for beam in beams]
        predicted = np.stack([row.predicted for row in rows])
        logits = self.session.join(np.repeat(frame, counts, axis=0), predicted)
        scores = self.fusion.scores(logits, [row.fusion for row in rows]).astype(np.float64)
        scores += np.array([row.log_prob for row in rows])[:, None]
        ends = np.cumsum(counts)
        grown: list[tuple[Hypothesis, int]] = []
        after = []
        for beam, end, number in zip(beams, ends, numbers, strict=True):
            part = slice(end - len(beam), end)
            after.append(self._choose(beam, scores[part], logits[part], number, grown))
        return self._predict(after, grown)

    def _choose(
        self,
        beam: list[Hypothesis],
        scores: npt.NDArray[np.float64],
        logits: FloatArray,
        number: int,
        grown: list[tuple[Hypothesis, int]],
    ) -> list[Hypothesis]:
        """The K best continuations of a stream, the same labels made one; notes what grew."""
        kept: dict[tuple[int, ...], Hypothesis] = {}
        new: dict[tuple[int, ...], int] = {}
        for row, label in best_cells(scores, self.max_active_paths):
            old, score, silent = beam[row], float(scores[row, label]), label in self._silent
            if silent:
                key, trailing = old.labels, old.num_trailing_blanks + 1
                made = replace(old, log_prob=score, num_trailing_blanks=trailing)
            else:
                key = (*old.labels, label)
                made = self._grow(old, score, label, logits[row], number)
            if key in kept:
                kept[key] = add_up(kept[key], made.log_prob)
                continue
            kept[key] = made
            if not silent:
                new[key] = label
        grown += [(kept[key], label) for key, label in new.items()]
        return list(kept.values())

    def _grow(
        self, old: Hypothesis, score: float, label: int, logits: FloatArray, number: int
    ) -> Hypothesis:
        """With one label more; the predictor has not heard it yet."""
        fusion, earned = self.fusion.follow(old.fusion, label)
        token = Token(label, number, self.fusion.confidence(logits, label))
        return replace(
            old,
            tokens=(*old.tokens, token),
            log_prob=score + earned,
            fusion=fusion,
            num_trailing_blanks=0,
        )

    def _predict(
        self, beams: list[list[Hypothesis]], grown: list[tuple[Hypothesis, int]]
    ) -> list[list[Hypothesis]]:
        """The beams after the predictor has heard the new labels, all in one call."""
        if not grown:
            return beams
        memory = tuple(map(np.stack, zip(*(h.memory for h, _ in grown), strict=True)))
        labels = np.array([label for _, label in grown], dtype=np.int64)
        predicted, after = self.session.predict(labels, memory)
        told = {
            id(old): replace(old, memory=tuple(p[n] for p in after), predicted=predicted[n])
            for n, (old, _) in enumerate(grown)
        }
        return [[told.get(id(h), h) for h in beam] for beam in beams]

    def _close(
        self, state: BeamState, beam: list[Hypothesis], num_frames: int
    ) -> tuple[list[Token], BeamState]:
        """The tokens that became certain, and the state after the chunk."""
        num_frames += state.num_frames
        after = self._sort(replace(state, hypotheses=tuple(beam), num_frames=num_frames))
        surplus = max(0, len(after.pending) - MAX_PENDING)
        start = after.pending[:surplus]
        kept = [h for h in after.hypotheses if h.tokens[:surplus] == start]
        certain = shared_prefix([h.tokens for h in kept])
        left = tuple(replace(h, tokens=h.tokens[len(certain) :]) for h in kept)
        return certain, replace(
            after, hypotheses=left, num_certain=state.num_certain + len(certain)
        )

    def _sort(self, state: BeamState) -> BeamState:
        """The best hypothesis first, and the likeliest at 0."""
        length = self._context_size + state.num_certain
        hypotheses = sorted(
            state.hypotheses,
            key=lambda h: -(state.log_prob + h.log_prob) / (length + len(h.tokens)),
        )
        peak = max(h.log_prob for h in hypotheses)
        level = tuple(replace(h, log_prob=h.log_prob - peak) for h in hypotheses)
        return replace(state, hypotheses=level, log_prob=state.log_prob + peak)


def best_cells(scores: npt.NDArray[np.float64], num: int) -> list[tuple[int, int]]:
    """Row and column of the largest scores (R, V), the largest first."""
    flat = scores.ravel()
    num = min(num, flat.size)
    chosen = np.argpartition(flat, flat.size - num)[-num:]
    chosen = chosen[np.argsort(-flat[chosen], kind="stable")]
    width = scores.shape[1]
    return [divmod(int(cell), width) for cell in chosen]


def add_up(hypothesis: Hypothesis, log_prob: float) -> Hypothesis:
    """The hypothesis when another path with the same labels comes in."""
    return replace(hypothesis, log_prob=float(np.logaddexp(hypothesis.log_prob, log_prob)))


def shared_prefix(paths: Sequence[tuple[Token, ...]]) -> list[Token]:
    """The tokens with which all paths begin, at the same frames."""
    shared = []
    for tokens in zip(*paths, strict=False):
        if any(token != tokens[0] for token in tokens[1:]):
            break
        shared.append(tokens[0])
    return shared
