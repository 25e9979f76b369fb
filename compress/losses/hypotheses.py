"""log P(y|x) of label sequences other than a batch's targets: hypotheses, several an utterance.

# Letters: B utterances, N hypotheses an utterance, M sequences, T frames, U labels, J joint width,
# R rows of an utterance, C context of a stateless predictor, V tokens incl. blank.

A lattice row asks the joiner for blank and the next label after some labels. The hypotheses of an
utterance mostly agree, and a stateless predictor knows the last C labels alone, so most of their
rows are the same row: the joiner, which costs V times what the recursion does, sees it once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.losses.joint import joint_log_probs
from compress.losses.rnnt import transducer_loss
from compress.models.predictors import StatelessPredictor
from compress.models.transducer import Transducer


class Hypotheses(NamedTuple):
    """labels (B, N, U) padded with 0, lengths (B, N), valid (B, N) bool: some have fewer than N."""

    labels: Tensor
    lengths: Tensor
    valid: Tensor


class Rows(NamedTuple):
    """The different rows of each utterance, padded: context (B, R, C), next_label (B, R).

    places (M, U+1): which row of its utterance each row of a sequence is.
    """

    context: Tensor
    next_label: Tensor
    places: Tensor


def score_labels(
    model: Transducer,
    encoded: Tensor,
    logit_lengths: Tensor,
    labels: Tensor,
    label_lengths: Tensor,
) -> Tensor:
    """Full sum over alignments in nats, (B,), differentiable: one sequence an utterance.

    encoded (B, T, J), labels (B, U) padded with 0. An empty sequence scores its T blanks.
    """
    predicted = model.predictor.forward_sequence(labels)
    moves = joint_log_probs(encoded, predicted, model.joiner.output, labels)
    return -transducer_loss(*moves, logit_lengths, label_lengths)


def score_hypotheses(
    model: Transducer, encoded: Tensor, logit_lengths: Tensor, hypotheses: Hypotheses
) -> Tensor:
    """Full sum of every hypothesis, (B, N), -inf where not valid; differentiable."""
    utterance, number = hypotheses.valid.nonzero(as_tuple=True)
    lengths = hypotheses.lengths[utterance, number]
    labels = hypotheses.labels[utterance, number, : int(lengths.max())]
    predictor = model.predictor
    if isinstance(predictor, StatelessPredictor):
        rows = different_rows(predictor, utterance, labels, lengths, len(encoded))
        moves = shared_moves(model, encoded, utterance, rows)
        found = -transducer_loss(*moves, logit_lengths[utterance], lengths)
    else:  # it remembers every label: hypotheses part for good where they first differ
        found = score_labels(model, encoded[utterance], logit_lengths[utterance], labels, lengths)
    scores = found.new_full(hypotheses.valid.shape, -torch.inf)
    return scores.index_put((utterance, number), found)


def shared_moves(
    model: Transducer, encoded: Tensor, utterance: Tensor, rows: Rows
) -> tuple[Tensor, Tensor]:
    """log_blank (M, T, U+1), log_emit (M, T, U) of sequences that belong to `utterance` (M,)."""
    predicted = F.pad(model.predictor(rows.context), (0, 0, 0, 1))  # the joiner wants a row more
    moves = joint_log_probs(encoded, predicted, model.joiner.output, rows.next_label)
    index = rows.places[:, None].expand(-1, encoded.shape[1], -1)
    log_blank = moves[0][utterance].gather(2, index)
    return log_blank, moves[1][utterance].gather(2, index[:, :, :-1])


def different_rows(
    predictor: StatelessPredictor,
    utterance: Tensor,
    labels: Tensor,
    lengths: Tensor,
    num_utterances: int,
) -> Rows:
    """Every row of the sequences, once an utterance."""
    start = predictor.initial_context(len(labels), labels.device)
    contexts = torch.cat([start, labels], 1).unfold(1, predictor.context, 1)
    owner = utterance[:, None, None].expand(*contexts.shape[:2], 1)
    keys = torch.cat([owner, contexts, F.pad(labels, (0, 1)).unsqueeze(-1)], 2)
    inside = torch.arange(keys.shape[1], device=labels.device) <= lengths[:, None]
    rows, index = torch.unique(keys[inside], dim=0, return_inverse=True)
    owner = rows[:, 0]
    count = owner.bincount(minlength=num_utterances)
    place = torch.arange(len(rows), device=labels.device) - (count.cumsum(0) - count)[owner]
    padded = rows.new_zeros(num_utterances, int(count.max()), rows.shape[1])
    padded[owner, place] = rows
    places = torch.zeros_like(keys[..., 0])
    places[inside] = place[index]
    return Rows(padded[..., 1:-1], padded[..., -1], places)
