"""The parity ladder: the same sound through every form of the model, neighbours compared.

    torch whole -> torch streaming -> onnxruntime fp32 -> each other precision

Each stream carries its state over `num_chunks` chunks (traces.py); compared are the encoding and
the states after every chunk, the predictor and the joiner on the same inputs, and the tokens of the
greedy search. Up to fp32 all must agree to 1e-4. Every other precision is another function: there
the tokens count, of one stream alone, because the streams of a batch share the scale of their
activations; a model that sits on ties passes by the size of its errors. Last, a stream that was set
back to zero must go on as a new one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from export.agreement import token_agreement
from export.divergence import explain_step
from export.torch_session import TorchSession
from export.traces import Course, Step, Trace, lay_course, trace_chunks, trace_whole
from export.wrap import AnyPredictor, Encoder, Joiner
from streaming.bundle import BundleInfo, read_bundle
from streaming.features import FloatArray
from streaming.search import Token
from streaming.session import Session, open_session

TOLERANCE = 1e-4
NUM_CHUNKS = 50
# Broken quantisation leaves under 0.5. A student of 150 steps had 0.76 on these cut and joined
# utterances, and fewer word errors than in fp32: what int8 costs is judged by WER (verify.py).
MIN_INT8_AGREEMENT = 0.6
# A student of 6 steps had 0.57: all its labels are ties. Its outputs differ by 1 to 2 % of their
# deviations, as int8's do in any model; where an operator is wrong, they have little in common.
CLOSE = 0.05
STREAMS = (1, 3)
EXACT = "fp32"
Row = dict[str, Any]


def ladder(
    encoder: Encoder | None,
    predictor: AnyPredictor | None,
    joiner: Joiner | None,
    folder: Path | str,
    features: Sequence[FloatArray],
    *,
    num_chunks: int = NUM_CHUNKS,
    streams: Sequence[int] = STREAMS,
    tolerance: float = TOLERANCE,
    min_int8_agreement: float = MIN_INT8_AGREEMENT,
    seed: int = 0,
    block_rows: Mapping[str, int] = MappingProxyType({}),
    evidence: Path | None = None,
) -> list[Row]:
    """One row for each step and number of streams; the run is fit when all have "passed".

    encoder, predictor, joiner: the torch modules the bundle was made of; None for all three begins
    at onnxruntime. features: utterances (T, F), joined end to end until every stream has num_chunks
    chunks. seed: of where the streams begin and stream 0 begins anew. block_rows: as write_bundle
    was given them. evidence: folder for the inputs of a step that fails; such a row also gets
    "evidence", the file, and the first of them "node", where the graph first differs from a fresh
    export.
    Rows: from, to, streams, chunks, max_error, mean_error (of the encoding), errors and mean_errors
    of each output, token_agreement (1 - edit distance / length), first_divergent_chunk or None,
    passed.
    """
    info = read_bundle(folder)
    whole = None
    if encoder is not None and predictor is not None and joiner is not None:
        whole = TorchSession(info, encoder, predictor, joiner)
    sessions = {name: open_session(info, name) for name in order_precisions(info)}
    rows: list[Row] = []
    for num_streams in streams:
        course = lay_course(features, num_streams, num_chunks, info.chunk_frames, seed)
        agreement = min_int8_agreement if num_streams == 1 else 0.0
        for step in climb(whole, sessions, course, tolerance, agreement):
            row = {**step.row, "streams": num_streams, "chunks": step.course.num_chunks}
            if not row["passed"] and evidence is not None:
                told = any("node" in earlier for earlier in rows)  # an export takes its time
                row |= explain_step(step, info, None if told else whole, block_rows, evidence)
            rows.append(row)
    return rows


def order_precisions(info: BundleInfo) -> list[str]:
    """fp32 first, where there is one: it is what the others are judged by."""
    return sorted(info.files, key=lambda name: (name != EXACT, list(info.files).index(name)))


def climb(
    whole: TorchSession | None,
    sessions: Mapping[str, Session],
    course: Course,
    tolerance: float,
    min_agreement: float,
) -> Iterator[Step]:
    """The steps of one course, one after the other; only two rungs are kept in memory."""
    before: Trace | None = None
    if whole:
        before = trace_chunks("torch streaming", whole, course)
        yield _step(trace_whole(whole, course), before, course, tolerance)
    for name, session in sessions.items():
        trace = trace_chunks(f"onnxruntime {name}", session, course)
        if before:
            exact = name == EXACT
            yield _step(before, trace, course, tolerance if exact else None, min_agreement)
        if name == EXACT or before is None:
            before = trace
        if name == EXACT or len(course.features) == 1:
            yield _reset_step(trace, session, course, tolerance)


def _step(
    one: Trace, other: Trace, course: Course, tolerance: float | None, min_agreement: float = 1.0
) -> Step:
    return Step(one, other, course, tolerance, compare(one, other, tolerance, min_agreement))


def _reset_step(trace: Trace, session: Session, course: Course, tolerance: float) -> Step:
    """A new stream against stream 0 of `trace` from where its state was set back to zero."""
    rest = course.after_reset()
    name = trace.name.removeprefix("onnxruntime ")
    fresh = trace_chunks(f"{name}, new stream", session, rest)
    size = trace.chunks["encoder_out"][0].shape[1]
    ours = [token for token in trace.tokens[0] if token.frame >= course.reset * size]
    tokens = [Token(token.index, token.frame - course.reset * size) for token in ours]
    encoded = [array[:1] for array in trace.chunks["encoder_out"][course.reset :]]
    after = Trace(f"{name}, after reset", {"encoder_out": encoded}, tokens=[tokens])
    return _step(after, fresh, rest, tolerance)


def compare(one: Trace, other: Trace, tolerance: float | None, min_agreement: float) -> Row:
    """The row of one step; tolerance None judges by tokens alone."""
    errors: dict[str, list[FloatArray]] = {
        key: [np.abs(a - b) for a, b in zip(values, other.chunks[key], strict=True)]
        for key, values in one.chunks.items()
    }
    probes = {key: np.abs(array - other.probes[key]) for key, array in one.probes.items()}
    together = {key: np.stack(chunks) for key, chunks in errors.items()} | probes
    worst = {key: float(error.max()) for key, error in together.items()}
    agreement = token_agreement(
        [[token.index for token in stream] for stream in one.tokens],
        [[token.index for token in stream] for stream in other.tokens],
    )
    maximum = float(np.max(list(worst.values())))  # max() would lose a NaN
    if tolerance is None:
        first = _first_other_token(one, other)
        passed = agreement >= min_agreement or is_close(one, together)
    else:
        bad = (
            i for e in errors.values() for i, chunk in enumerate(e) if not chunk.max() <= tolerance
        )
        first = min(bad, default=None)
        passed = maximum <= tolerance
    return {
        "from": one.name,
        "to": other.name,
        "max_error": maximum,
        "mean_error": float(together["encoder_out"].mean()),
        "errors": worst,
        "mean_errors": {key: float(error.mean()) for key, error in together.items()},
        "token_agreement": agreement,
        "first_divergent_chunk": first,
        "passed": bool(passed and np.isfinite(maximum)),
    }


def is_close(one: Trace, errors: Mapping[str, FloatArray]) -> bool:
    """Whether encoding, predictor and joiner are off by a small part of how much they vary."""
    values = {"encoder_out": np.stack(one.chunks["encoder_out"]), **one.probes}
    off = [float(errors[key].mean() / max(array.std(), 1e-9)) for key, array in values.items()]
    return bool(np.max(off) <= CLOSE)


def _first_other_token(one: Trace, other: Trace) -> int | None:
    """The first chunk in which any stream emits other tokens, or at other frames."""
    size = one.chunks["encoder_out"][0].shape[1]
    pairs = zip(one.tokens, other.tokens, strict=True)
    frames = [token.frame for a, b in pairs for token in {*a} ^ {*b}]
    return min(frames) // size if frames else None
