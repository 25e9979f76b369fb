"""How far a quantised graph moves what a model says, measured on what its fp32 graphs heard.

# Letters: Q calls of the joiner, M encoder frames, J joint width, V tokens incl. blank.

Greedy search with the fp32 graphs is recorded once. Then one of the three graphs at a time stands
in for its fp32 form, and at every call of the joiner

    KL( softmax of fp32 || softmax with the other graph ),  nats, the mean over all calls

says how far the model as a whole has moved. The unit is the same for a layer of any of the three,
so that one budget can be spent on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from export.quantize.calibration import check_features, cut_chunks, listen
from streaming.bundle import BundleInfo
from streaming.features import FloatArray
from streaming.session import LabelArray, Memory, Session, State, open_session

Indices = npt.NDArray[np.int64]


class Recorder:
    """A session that remembers what it was asked and what it answered, one stream at a time."""

    joins_rows_alone = False  # so that a search asks for each frame that it needs, and no other

    def __init__(self, session: Session) -> None:
        self.info = session.info
        self.initial_state = session.initial_state
        self.empty_memory = session.empty_memory
        self._session = session
        self.encoded: list[FloatArray] = []
        self.num_frames = 0
        self.asked: list[tuple[LabelArray, Memory]] = []
        self.predicted: list[FloatArray] = []
        self.pairs: list[tuple[int, int]] = []  # encoder frame and answer of each joiner call
        self.logits: list[FloatArray] = []

    def encode(self, chunk: FloatArray, state: State) -> tuple[FloatArray, State]:
        encoded, state = self._session.encode(chunk, state)
        self.encoded.append(encoded[0])
        self.num_frames += len(encoded[0])
        return encoded, state

    def predict(self, labels: LabelArray, memory: Memory) -> tuple[FloatArray, Memory]:
        predicted, after = self._session.predict(labels, memory)
        self.asked.append((labels, memory))
        self.predicted.append(predicted[0])
        return predicted, after

    def join(self, encoded: FloatArray, predicted: FloatArray) -> FloatArray:
        logits = self._session.join(encoded, predicted)
        frame = int(np.flatnonzero((self.encoded[-1] == encoded[0]).all(axis=1))[0])
        frame += self.num_frames - len(self.encoded[-1])
        self.pairs.append((frame, len(self.predicted) - 1))
        self.logits.append(logits[0])
        return logits


@dataclass(frozen=True)
class Probe:
    """What the fp32 graphs of a bundle did with some utterances; made by `record`.

    chunks: of each utterance (chunk, F). frames (M, J), answers (.., J) of the predictor to
    `asked`; frame and answer (Q,) of each joiner call, and its log_probs (Q, V).
    """

    session: Session
    chunks: list[list[FloatArray]] = field(repr=False)
    asked: list[tuple[LabelArray, Memory]] = field(repr=False)
    frames: FloatArray = field(repr=False)
    answers: FloatArray = field(repr=False)
    frame: Indices = field(repr=False)
    answer: Indices = field(repr=False)
    log_probs: FloatArray = field(repr=False)

    @property
    def calls_a_chunk(self) -> dict[str, float]:
        """graph -> how often it runs for a chunk of this speech."""
        num_chunks = sum(map(len, self.chunks))
        calls = {"encoder": num_chunks, "decoder": len(self.asked), "joiner": len(self.frame)}
        return {graph: number / num_chunks for graph, number in calls.items()}

    def divergence(self, graph: str, session: Session) -> float:
        """Mean KL in nats, when `graph` of `session` stands in for its fp32 form."""
        if graph == "joiner":  # one call a pair: int8 takes its scale from what a call holds
            pairs = zip(self.frames[self.frame], self.answers[self.answer], strict=True)
            logits = np.concatenate([session.join(e[None], p[None]) for e, p in pairs])
        else:
            frames = self._encode(session) if graph == "encoder" else self.frames
            answers = self._predict(session) if graph == "decoder" else self.answers
            logits = self.session.join(frames[self.frame], answers[self.answer])
        return mean_divergence(self.log_probs, log_softmax(logits))

    def _encode(self, session: Session) -> FloatArray:
        """All frames again, each utterance with the states that `session` itself left."""
        frames = []
        for chunks in self.chunks:
            state = session.initial_state()
            for chunk in chunks:
                encoded, state = session.encode(chunk[None], state)
                frames.append(encoded[0])
        return np.concatenate(frames)

    def _predict(self, session: Session) -> FloatArray:
        return np.concatenate([session.predict(*call)[0] for call in self.asked])


def record(info: BundleInfo, utterances: Sequence[FloatArray]) -> Probe:
    """Greedy search by the fp32 graphs of a bundle over features (T, F) of utterances.

    Raises ExportError for no utterance, another number of mel bins, or values that are not finite.
    """
    check_features(info, utterances)
    session = open_session(info, "fp32")
    recorder = Recorder(session)
    listen(cast(Session, recorder), utterances)
    frame, answer = np.array(recorder.pairs, dtype=np.int64).T
    return Probe(
        session=session,
        chunks=[cut_chunks(u, info.chunk_frames, info.tail_frames) for u in utterances],
        asked=recorder.asked,
        frames=np.concatenate(recorder.encoded),
        answers=np.stack(recorder.predicted),
        frame=frame,
        answer=answer,
        log_probs=log_softmax(np.stack(recorder.logits)),
    )


def log_softmax(logits: FloatArray) -> FloatArray:
    """Over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def mean_divergence(exact: FloatArray, other: FloatArray) -> float:
    """Mean over rows of KL(exact || other), both log probabilities (Q, V).

    [0.5, 0.5] against [0.8, 0.2] gives 0.22. Raises ExportError where `other` is not finite.
    """
    divergence = float((np.exp(exact) * (exact - other)).sum(-1).mean())
    if not np.isfinite(divergence):
        raise ExportError("a quantised graph gave values that are not finite: keep it fp32")
    return max(0.0, divergence)
