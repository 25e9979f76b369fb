"""log P(y|x) of label sequences other than a batch's targets: hypotheses, several an utterance.

# Letters: B utterances, N hypotheses an utterance, M sequences, T frames, U labels, J joint width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from compress.losses.joint import joint_log_probs
from compress.losses.rnnt import transducer_loss
from compress.models.transducer import Transducer


class Hypotheses(NamedTuple):
    """labels (B, N, U) padded with 0, lengths (B, N), valid (B, N) bool: some have fewer than N."""

    labels: Tensor
    lengths: Tensor
    valid: Tensor


def score_labels(
    model: Transducer,
    encoded: Tensor,
    logit_lengths: Tensor,
    labels: Tensor,
    label_lengths: Tensor,
) -> Tensor:
    """Full sum over alignments in nats, (M,), differentiable: predictor, joiner and lattice.

    encoded (M, T, J), labels (M, U) padded with 0. An empty sequence scores its T blanks.
    """
    predicted = model.predictor.forward_sequence(labels)
    moves = joint_log_probs(encoded, predicted, model.joiner.output, labels)
    return -transducer_loss(*moves, logit_lengths, label_lengths)


def score_hypotheses(
    model: Transducer, encoded: Tensor, logit_lengths: Tensor, hypotheses: Hypotheses
) -> Tensor:
    """log P(y_n|x) of all hypotheses in one batch of lattices, (B, N), -inf where not valid."""
    utterance, number = hypotheses.valid.nonzero(as_tuple=True)
    lengths = hypotheses.lengths[utterance, number]
    longest = int(lengths.max())
    found = score_labels(
        model,
        encoded[utterance],
        logit_lengths[utterance],
        hypotheses.labels[utterance, number, :longest],
        lengths,
    )
    scores = found.new_full(hypotheses.valid.shape, -torch.inf)
    return scores.index_put((utterance, number), found)
