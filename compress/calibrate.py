"""How sure a student may be of blank, settled on development speech.

A student that learnt in minutes prefers blank where it is unsure: 73 of the 117 errors of the first
full run were deletions, 4 insertions. A penalty on blank's logit is a bias like any other, so it
goes into the joiner and costs nothing on the device (bench/LOG.md has the figures).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from compress.data.store import FeatureStore
from compress.data.tokenizer import Tokenizer
from compress.evaluate import decode_store, word_error_rate
from compress.models.predictors import BLANK
from compress.models.transducer import Transducer

PENALTIES = (0.0, 0.5, 1.0, 1.5, 2.0)


@torch.no_grad()
def calibrate_blank(model: Transducer, sets: Iterable[FeatureStore], tokenizer: Tokenizer) -> float:
    """Take from blank's bias the penalty with the fewest word errors on `sets`; returns it.

    In place, in nats; of equal ones the smallest. Use speech that nothing is judged by later.
    """
    stores = list(sets)
    bias = model.joiner.output.bias
    before = float(bias[BLANK])
    rates = {}
    for penalty in PENALTIES:
        bias[BLANK] = before - penalty
        pairs = [decode_store(model, store, tokenizer) for store in stores]
        said = [text for references, _ in pairs for text in references]
        heard = [text for _, hypotheses in pairs for text in hypotheses]
        rates[penalty] = word_error_rate(said, heard).wer
    best = min(PENALTIES, key=lambda penalty: rates[penalty])
    bias[BLANK] = before - best
    return best


@torch.no_grad()
def shift_blank(model: Transducer, change: float) -> None:
    """Add `change` nats to blank's bias: a penalty taken back, or one found on a rounded copy."""
    model.joiner.output.bias[BLANK] += change
