"""The parity ladder: the same sound through every form of the model, neighbours compared.

    torch whole -> torch streaming -> onnxruntime fp32 -> onnxruntime int8

# Letters: N streams, T frames, F mel bins, S encoder frames, J joint width.

Each stream carries its state over `num_chunks` chunks; compared are the encoding and both states
after every chunk, the predictor and the joiner on the same inputs, and the tokens of the greedy
search. The first two steps must agree to 1e-4. int8 is another function: there the tokens count,
of one stream alone, because the streams of a batch share the scale of their activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch

from export.errors import ExportError
from export.wrap import Encoder, Joiner, Predictor, StateLayout, freeze
from streaming.bundle import TOKENS_FILE, BundleInfo, read_bundle
from streaming.features import FloatArray
from streaming.search import Token, greedy_search, initial_search
from streaming.session import LabelArray, Session, State
from streaming.tokens import UNKNOWN, read_tokens

TOLERANCE = 1e-4
NUM_CHUNKS = 50
# Broken quantisation leaves under 0.5; a student that is still unsure of itself may reach 0.85.
MIN_INT8_AGREEMENT = 0.8
STREAMS = (1, 3)
Row = dict[str, Any]


class Runner(Protocol):
    """What streaming.session.Session and TorchSession have in common."""

    info: BundleInfo

    def initial_state(self, num_streams: int = 1) -> State: ...

    def encode(self, chunk: FloatArray, state: State) -> tuple[FloatArray, State]: ...

    def predict(self, labels: LabelArray) -> FloatArray: ...

    def join(self, encoded: FloatArray, predicted: FloatArray) -> FloatArray: ...


class TorchSession:
    """The torch modules behind the calls of streaming.session.Session."""

    def __init__(
        self, info: BundleInfo, encoder: Encoder, predictor: Predictor, joiner: Joiner
    ) -> None:
        self.info = info
        self.encoder = freeze(encoder)
        self.predictor = freeze(predictor)
        self.joiner = freeze(joiner)
        self.layout = StateLayout(self.encoder.initial_state(1))

    def initial_state(self, num_streams: int = 1) -> State:
        state0, state1 = self.layout.pack(self.encoder.initial_state(num_streams))
        return state0.numpy(), state1.numpy()

    @torch.no_grad()
    def encode(self, chunk: FloatArray, state: State) -> tuple[FloatArray, State]:
        unpacked = self.layout.unpack(*(torch.from_numpy(part) for part in state))
        encoded, next_state = self.encoder.streaming_forward(torch.from_numpy(chunk), unpacked)
        state0, state1 = self.layout.pack(next_state)
        return encoded.numpy(), (state0.numpy(), state1.numpy())

    @torch.no_grad()
    def encode_whole(self, features: FloatArray) -> FloatArray:
        """features (N, T, F), T a multiple of the chunk -> (N, S, J)."""
        lengths = torch.full((features.shape[0],), features.shape[1])
        encoded, _ = self.encoder(torch.from_numpy(features), lengths)
        return encoded.numpy()

    @torch.no_grad()
    def predict(self, labels: LabelArray) -> FloatArray:
        return self.predictor(torch.from_numpy(labels)).numpy()

    @torch.no_grad()
    def join(self, encoded: FloatArray, predicted: FloatArray) -> FloatArray:
        return self.joiner(torch.from_numpy(encoded), torch.from_numpy(predicted)).numpy()


@dataclass
class Trace:
    """What one rung gave: arrays by name, one list entry a chunk; tokens of each stream."""

    name: str
    chunks: dict[str, list[FloatArray]] = field(default_factory=dict)
    probes: dict[str, FloatArray] = field(default_factory=dict)
    tokens: list[list[Token]] = field(default_factory=list)


def ladder(
    encoder: Encoder,
    predictor: Predictor,
    joiner: Joiner,
    folder: Path | str,
    features: Sequence[FloatArray],
    *,
    num_chunks: int = NUM_CHUNKS,
    streams: Sequence[int] = STREAMS,
    tolerance: float = TOLERANCE,
    min_int8_agreement: float = MIN_INT8_AGREEMENT,
) -> list[Row]:
    """One row for each step and number of streams; the run is fit when all have "passed".

    features: utterances (T, F), joined end to end until every stream has num_chunks chunks.
    Rows: from, to, streams, chunks, max_error, mean_error, errors (maximum of each output),
    token_agreement (1 - edit distance / length), first_divergent_chunk or None, passed.
    """
    info = read_bundle(folder)
    whole = TorchSession(info, encoder, predictor, joiner)
    sessions = {f"onnxruntime {name}": Session(info, name) for name in info.files}
    rows = []
    for num_streams in streams:
        joined = join_utterances(features, num_streams, num_chunks * info.chunk_frames)
        traces = [_trace_whole(whole, joined), _trace("torch streaming", whole, joined)]
        traces += [_trace(name, session, joined) for name, session in sessions.items()]
        for one, other in pairwise(traces):
            exact = not other.name.endswith("int8")
            agreement = min_int8_agreement if num_streams == 1 else 0.0
            row = compare(one, other, tolerance if exact else None, agreement)
            rows.append({**row, "streams": num_streams, "chunks": num_chunks})
    return rows


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


def _trace_whole(session: TorchSession, features: FloatArray) -> Trace:
    trace = Trace("torch whole")
    encoded = session.encode_whole(features)
    size = session.info.chunk_frames // session.info.subsampling
    trace.chunks["encoder_out"] = np.split(encoded, range(size, encoded.shape[1], size), axis=1)
    trace.tokens = _search(session, trace.chunks["encoder_out"])
    return trace


def _trace(name: str, session: Runner, features: FloatArray) -> Trace:
    trace = Trace(name, {"encoder_out": [], "next_state0": [], "next_state1": []})
    state = session.initial_state(features.shape[0])
    size = session.info.chunk_frames
    for start in range(0, features.shape[1], size):
        chunk = np.ascontiguousarray(features[:, start : start + size])
        encoded, state = session.encode(chunk, state)
        for key, array in zip(trace.chunks, (encoded, *state), strict=True):
            trace.chunks[key].append(array)
    trace.probes = _probe(session, trace.chunks["encoder_out"][-1].shape[-1])
    trace.tokens = _search(session, trace.chunks["encoder_out"])
    return trace


def _probe(session: Runner, width: int) -> dict[str, FloatArray]:
    """Predictor and joiner on fixed inputs: the start context, then random ones."""
    info, rng = session.info, np.random.default_rng(0)
    labels = rng.integers(0, info.vocab_size, (64, info.context_size), dtype=np.int64)
    labels[0] = [-1] * (info.context_size - 1) + [info.blank_id]
    vectors = rng.standard_normal((2, 64, width)).astype(np.float32)
    return {"decoder_out": session.predict(labels), "logit": session.join(vectors[0], vectors[1])}


def _search(session: Runner, chunks: Sequence[FloatArray]) -> list[list[Token]]:
    """Greedy tokens of every stream, frames counted from the start."""
    info = session.info
    assert info.folder is not None
    symbols = read_tokens(info.folder / TOKENS_FILE, info.vocab_size)
    blanks = frozenset({info.blank_id, *(i for i, s in enumerate(symbols) if s == UNKNOWN)})
    runner = cast(Session, session)
    states = [initial_search(runner) for _ in range(len(chunks[0]))]
    tokens: list[list[Token]] = [[] for _ in states]
    for encoded in chunks:
        found, states = greedy_search(runner, encoded, states, info.max_symbols_per_frame, blanks)
        for stream, new in zip(tokens, found, strict=True):
            stream.extend(new)
    return tokens


def compare(one: Trace, other: Trace, tolerance: float | None, min_agreement: float) -> Row:
    """The row of one step; tolerance None judges by tokens alone."""
    errors: dict[str, list[FloatArray]] = {
        key: [np.abs(a - b) for a, b in zip(values, other.chunks[key], strict=True)]
        for key, values in one.chunks.items()
    }
    probes = {key: np.abs(array - other.probes[key]) for key, array in one.probes.items()}
    worst = {key: float(max(e.max() for e in chunks)) for key, chunks in errors.items()}
    worst |= {key: float(error.max()) for key, error in probes.items()}
    agreement = token_agreement(
        [[token.index for token in stream] for stream in one.tokens],
        [[token.index for token in stream] for stream in other.tokens],
    )
    maximum = max(worst.values())
    if tolerance is None:
        first = _first_other_token(one, other)
        passed = agreement >= min_agreement
    else:
        bad = (i for e in errors.values() for i, chunk in enumerate(e) if chunk.max() > tolerance)
        first = min(bad, default=None)
        passed = maximum <= tolerance
    return {
        "from": one.name,
        "to": other.name,
        "max_error": maximum,
        "mean_error": float(np.mean([e.mean() for e in errors["encoder_out"]])),
        "errors": worst,
        "token_agreement": agreement,
        "first_divergent_chunk": first,
        "passed": bool(passed and np.isfinite(maximum)),
    }


def _first_other_token(one: Trace, other: Trace) -> int | None:
    """The first chunk in which any stream emits other tokens, or at other frames."""
    size = one.chunks["encoder_out"][0].shape[1]
    pairs = zip(one.tokens, other.tokens, strict=True)
    frames = [token.frame for a, b in pairs for token in {*a} ^ {*b}]
    return min(frames) // size if frames else None


def token_agreement(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> float:
    """1 - edit distance / length of the longer, over all streams; 1 where neither says a word."""
    pairs = list(zip(one, other, strict=True))
    length = sum(max(len(a), len(b)) for a, b in pairs)
    return 1 - sum(edit_distance(a, b) for a, b in pairs) / length if length else 1.0


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Insertions, deletions and substitutions; (1, 2, 3) and (1, 3) differ by 1."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
