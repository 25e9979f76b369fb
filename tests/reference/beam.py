"""Modified beam search of a transducer in plain loops, and every alignment it could follow."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor

from compress.models.transducer import Transducer

Labels = tuple[int, ...]


def next_log_probs(
    model: Transducer, frame: Tensor, labels: Labels, lm=None, lm_weight: float = 0.0
) -> dict[int, float]:
    """log P of staying (token 0: the better of blank and <unk>) and of each label.

    lm: labels so far -> log P of each token; <unk> has no part in it, and blank keeps its own.
    """
    context = torch.tensor([([-1, 0, *labels])[-2:]])
    with torch.no_grad():
        logits = model.joiner(frame[None], model.predictor(context))[0].double()
    log_probs = logits.log_softmax(-1).tolist()
    if not lm:
        return {0: max(log_probs[:2])} | dict(enumerate(log_probs[2:], 2))
    after = lm(labels)
    bids = {k: np.exp(log_probs[k] + lm_weight * after[k]) for k in range(2, len(log_probs))}
    share = (1 - np.exp(log_probs[0])) / sum(bids.values())
    return {0: log_probs[0]} | {k: np.log(bid * share) for k, bid in bids.items()}


def search_beam(
    model: Transducer, encoded: Tensor, beam: int, lm=None, lm_weight: float = 0.0
) -> list[tuple[Labels, float]]:
    """encoded (T, J) of one utterance -> labels and score, best first."""
    kept: dict[Labels, float] = {(): 0.0}
    for frame in encoded:
        reached: dict[Labels, float] = {}
        for labels, score in kept.items():
            following = next_log_probs(model, frame, labels, lm, lm_weight)
            for token, log_prob in following.items():
                after = (*labels, token) if token else labels
                reached[after] = np.logaddexp(reached.get(after, -np.inf), score + log_prob)
        kept = dict(sorted(reached.items(), key=lambda item: -item[1])[:beam])
    return list(kept.items())


def sum_alignments(model: Transducer, encoded: Tensor) -> dict[Labels, float]:
    """log P of all label sequences with at most one label a frame, over all V ** T alignments."""
    totals: dict[Labels, float] = {}
    for alignment in product(range(model.config.vocab_size), repeat=len(encoded)):
        if 1 in alignment:
            continue
        labels: Labels = ()
        score = 0.0
        for frame, token in zip(encoded, alignment, strict=True):
            score += next_log_probs(model, frame, labels)[token]
            labels = (*labels, token) if token else labels
        totals[labels] = np.logaddexp(totals.get(labels, -np.inf), score)
    return totals
