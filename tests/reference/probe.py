"""What export/quantize/probe.py measures, in one loop over utterances, frames and labels."""

from __future__ import annotations

import numpy as np

from export.quantize.calibration import cut_chunks
from streaming.session import Session


def divergence(exact: Session, other: Session, graph: str, utterances, silent) -> float:
    """Mean KL in nats over all joiner calls of a greedy search that only `exact` steers."""
    info, divergences = exact.info, []
    for features in utterances:
        states = exact.initial_state(), other.initial_state()
        label, memory = np.array([info.blank_id]), exact.empty_memory()
        predicted, other_predicted, memory = step(exact, other, label, memory)
        for chunk in cut_chunks(features, info.chunk_frames, info.tail_frames):
            encoded, state = exact.encode(chunk[None], states[0])
            other_encoded, other_state = other.encode(chunk[None], states[1])
            states = state, other_state
            for t in range(encoded.shape[1]):
                for _ in range(info.max_symbols_per_frame):
                    logits = exact.join(encoded[:, t], predicted)
                    e = other_encoded if graph == "encoder" else encoded
                    p = other_predicted if graph == "decoder" else predicted
                    joined = other.join(e[:, t], p) if graph == "joiner" else exact.join(e[:, t], p)
                    divergences.append(kl(softmax(logits[0]), softmax(joined[0])))
                    best = int(logits[0].argmax())
                    if best in silent:
                        break
                    predicted, other_predicted, memory = step(
                        exact, other, np.array([best]), memory
                    )
    return float(np.mean(divergences))


def step(exact: Session, other: Session, label, memory):
    """Both predictors on the label and the memory of the exact one."""
    predicted, after = exact.predict(label, memory)
    return predicted, other.predict(label, memory)[0], after


def softmax(logits) -> list[float]:
    weights = [float(np.exp(np.float64(z) - np.float64(max(logits)))) for z in logits]
    return [weight / sum(weights) for weight in weights]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * float(np.log(a / b)) for a, b in zip(p, q, strict=True) if a > 0)
