"""What one form of the model does with a course of features: arrays chunk by chunk, and tokens.

# Letters: N streams, T frames, F mel bins, S encoder frames, J joint width.

Every stream of a course begins at a random frame of the speech, so that chunks fall anywhere on
it, and in the middle of the course stream 0 begins anew: its state is set back to zero while the
others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from export.errors import ExportError
from export.torch_session import Runner, TorchSession
from streaming.bundle import TOKENS_FILE
from streaming.features import FloatArray
from streaming.search import GreedySearch, Token, silent_tokens
from streaming.session import Session, State
from streaming.tokens import read_tokens

NUM_PROBES = 64


@dataclass(frozen=True)
class Course:
    """features (N, T, F), T a multiple of chunk_frames; stream 0 begins anew at chunk reset."""

    features: FloatArray
    chunk_frames: int
    reset: int

    @property
    def num_chunks(self) -> int:
        return len(range(0, self.features.shape[1], self.chunk_frames))

    def chunk(self, index: int) -> FloatArray:
        """(N, chunk_frames, F)."""
        start = index * self.chunk_frames
        return np.ascontiguousarray(self.features[:, start : start + self.chunk_frames])

    def after_reset(self) -> Course:
        """What stream 0 hears from its second beginning on, alone and without another reset."""
        return Course(self.features[:1, self.reset * self.chunk_frames :], self.chunk_frames, 0)


@dataclass
class Trace:
    """What one rung gave: arrays by name, one list entry a chunk; tokens of each stream.

    before: the state each chunk was given, empty for a rung without one. probes: what predictor
    and joiner said to fixed inputs.
    """

    name: str
    chunks: dict[str, list[FloatArray]] = field(default_factory=dict)
    probes: dict[str, FloatArray] = field(default_factory=dict)
    tokens: list[list[Token]] = field(default_factory=list)
    before: list[State] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """Two rungs that heard the same course, what they differ in, and by how much they may.

    tolerance: None where only the tokens count.
    """

    one: Trace
    other: Trace
    course: Course
    tolerance: float | None
    row: dict[str, Any]


def lay_course(
    features: Sequence[FloatArray], num_streams: int, num_chunks: int, chunk_frames: int, seed: int
) -> Course:
    """Utterances (T, F) in turn, from a random frame of the first chunk on; reset in the middle."""
    rng = np.random.default_rng(seed)
    length = num_chunks * chunk_frames
    phases = rng.integers(0, chunk_frames, num_streams)
    joined = join_utterances(features, num_streams, length + chunk_frames)
    shifted = np.stack([s[p : p + length] for s, p in zip(joined, phases, strict=True)])
    reset = int(rng.integers(num_chunks // 3, 2 * num_chunks // 3 + 1)) if num_chunks > 1 else 0
    return Course(shifted, chunk_frames, reset)


def join_utterances(features: Sequence[FloatArray], num_streams: int, length: int) -> FloatArray:
    """(num_streams, length, F): the utterances one after the other, each stream starting later."""
    if not features or not sum(len(utterance) for utterance in features):
        raise ExportError("the parity ladder needs features: give at least one utterance")
    joined = []
    for first in range(num_streams):
        start = first % len(features)
        once = np.concatenate([*features[start:], *features[:start]]).astype(np.float32)
        joined.append(np.tile(once, (-(-length // len(once)), 1))[:length])
    return np.stack(joined)


def trace_whole(session: TorchSession, course: Course) -> Trace:
    """Every stream in one call; what stream 0 says after its reset in a second one."""
    trace = Trace("torch whole")
    encoded = session.encode_whole(course.features).copy()
    size = session.info.chunk_frames // session.info.subsampling
    if course.reset:
        encoded[:1, course.reset * size :] = session.encode_whole(course.after_reset().features)
    trace.chunks["encoder_out"] = np.split(encoded, range(size, encoded.shape[1], size), axis=1)
    trace.tokens = search(session, trace.chunks["encoder_out"], course.reset)
    return trace


def trace_chunks(name: str, session: Runner, course: Course) -> Trace:
    """Chunk by chunk, with carried state."""
    state = session.initial_state(course.features.shape[0])
    keys = ["encoder_out", *(f"next_state{i}" for i in range(len(state)))]
    trace = Trace(name, {key: [] for key in keys})
    for index in range(course.num_chunks):
        if index and index == course.reset:
            state = empty_first_stream(session, state)
        trace.before.append(state)
        encoded, state = session.encode(course.chunk(index), state)
        for key, array in zip(keys, (encoded, *state), strict=True):
            trace.chunks[key].append(array)
    _probe(trace, session)
    trace.tokens = search(session, trace.chunks["encoder_out"], course.reset)
    return trace


def empty_first_stream(session: Runner, state: State) -> State:
    """The state with that of stream 0 as at the start; streams lie along axis 1."""
    emptied = tuple(part.copy() for part in state)
    for part, empty in zip(emptied, session.initial_state(), strict=True):
        part[:, 0] = empty[:, 0]
    return emptied


def _probe(trace: Trace, session: Runner) -> None:
    """Predictor and joiner on fixed inputs: blank, as at the start, then random labels."""
    info, rng = session.info, np.random.default_rng(0)
    labels = rng.integers(0, info.vocab_size, (info.context_size + 2, NUM_PROBES))
    labels[0] = info.blank_id
    memory, predicted = session.empty_memory(NUM_PROBES), []
    for new in labels:
        answer, memory = session.predict(new, memory)
        predicted.append(answer)
    width = trace.chunks["encoder_out"][-1].shape[-1]
    vectors = rng.standard_normal((2, NUM_PROBES, width)).astype(np.float32)
    trace.probes = {"decoder_out": np.stack(predicted), "logit": session.join(*vectors)}


def search(session: Runner, chunks: Sequence[FloatArray], reset: int) -> list[list[Token]]:
    """Greedy tokens of every stream, frames counted from the start; stream 0 forgets at reset."""
    info = session.info
    assert info.folder is not None
    symbols = read_tokens(info.folder / TOKENS_FILE, info.vocab_size, info.blank_id)
    blanks = silent_tokens(info, symbols)
    greedy = GreedySearch(cast(Session, session), blanks, info.max_symbols_per_frame)
    states = [greedy.start() for _ in range(len(chunks[0]))]
    tokens: list[list[Token]] = [[] for _ in states]
    size = chunks[0].shape[1]
    for index, encoded in enumerate(chunks):
        if index and index == reset:
            states[0] = greedy.start()
        found, states = greedy.advance(encoded, states)
        for n, (stream, new) in enumerate(zip(tokens, found, strict=True)):
            late = reset * size if n == 0 and index >= reset else 0
            stream.extend(replace(token, frame=token.frame + late) for token in new)
    return tokens
