"""What a distillation method sees of a model on one batch.

# Letters: B utterances, T encoder frames, U labels.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from compress.data.batches import Batch
from compress.losses.joint import joint_log_probs
from compress.models.transducer import Transducer


class View(NamedTuple):
    """logit_lengths (B,), log_blank (B, T, U+1), log_emit (B, T, U)."""

    logit_lengths: Tensor
    log_blank: Tensor
    log_emit: Tensor


def view_batch(model: Transducer, batch: Batch) -> View:
    """Run the model on the batch's features and the lattice of its targets."""
    encoded, logit_lengths = model.encoder(batch.features, batch.feature_lengths)
    predicted = model.predictor.forward_sequence(batch.targets)
    moves = joint_log_probs(encoded, predicted, model.joiner.output, batch.targets)
    return View(logit_lengths, *moves)
