"""Collapsed lattice distillation (arXiv 2011.06110, eq. 4): `lattice`.

# Letters: B utterances, T encoder frames, U labels.

    L_KD = sum_{t,u} sum_{l in {y, blank, rest}} P^T(l|t,u) ln( P^T(l|t,u) / P^S(l|t,u) )    [paper]

Row u = U has no next label: two classes there. Mean over an utterance's valid nodes, times T+U,
the number of nodes on a path, so that a weight near 1 means the same for any length.       [ours]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.distiller import Distiller
from compress.distill.targets.kind import Kind
from compress.distill.targets.moves import MoveTargets
from compress.distill.view import TeacherView, View

# The largest log probability of y and blank together that still leaves float32 a remainder.
LARGEST_LOG = -1e-6


@dataclass(frozen=True)
class Lattice(Distiller):
    """The collapsed divergence on every node alike; it has no settings."""

    live: ClassVar[bool] = True

    def needs(self) -> list[Kind]:
        return [MoveTargets()]

    def loss(self, student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
        return lattice(student, teacher, batch)


def lattice(student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
    """The collapsed divergence, nats a label, mean over the batch; 0 where both agree."""
    divergence = node_divergence(student, teacher, batch.target_lengths)
    return (divergence * node_weights(student, batch.target_lengths)).sum()


def node_divergence(student: View, teacher: TeacherView | View, target_lengths: Tensor) -> Tensor:
    """KL(teacher || student) over the three classes of every node, (B, T, U+1).

    No gradient reaches the teacher, even one that is learning itself.
    """
    ours = collapse(student.log_blank, mask_last_row(student.log_emit, target_lengths))
    with torch.no_grad():
        theirs = collapse(teacher.log_blank, mask_last_row(teacher.log_emit, target_lengths))
    return (theirs.exp() * (theirs - ours)).sum(-1)


def collapse(log_blank: Tensor, log_emit: Tensor) -> Tensor:
    """(B, T, U+1), (B, T, U) -> (B, T, U+1, 3): log probability of y, blank and rest.

    The last row's y has probability zero and a finite logarithm, so that it adds nothing.
    """
    log_label = F.pad(log_emit, (0, 1), value=-1e4)
    both = torch.logaddexp(log_label, log_blank)
    return torch.stack([log_label, log_blank, log_remainder(both)], -1)


def log_remainder(log_probability: Tensor) -> Tensor:
    """log(1 - p) from log p, without the cancellation of 1 - p."""
    return torch.log(-torch.expm1(log_probability.clamp(max=LARGEST_LOG)))


def mask_last_row(log_emit: Tensor, target_lengths: Tensor) -> Tensor:
    """Padding has no label to emit: probability zero from row U_b on."""
    rows = torch.arange(log_emit.shape[2], device=log_emit.device)
    beyond = rows >= target_lengths[:, None]
    return log_emit.masked_fill(beyond[:, None], -1e4)


def valid_nodes(view: View, target_lengths: Tensor) -> Tensor:
    """(B, T, U+1) bool: t < T_b and u <= U_b."""
    num_frames, num_rows = view.log_blank.shape[1:]
    frames = torch.arange(num_frames, device=target_lengths.device)
    rows = torch.arange(num_rows, device=target_lengths.device)
    inside = frames < view.logit_lengths[:, None]
    return inside[:, :, None] & (rows <= target_lengths[:, None])[:, None]


def node_weights(view: View, target_lengths: Tensor) -> Tensor:
    """(B, T, U+1): every valid node alike, together (T+U) / U an utterance, over the batch's size.

    A sum with these weights is in nats a label, mean over the batch.
    """
    nodes = valid_nodes(view, target_lengths)
    path_length = view.logit_lengths + target_lengths
    share = path_length / (nodes.sum((1, 2)) * target_lengths.clamp(min=1) * len(nodes))
    return nodes * share[:, None, None]
