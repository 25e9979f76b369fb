"""Lattice distillation where the teacher's paths go: `occupancy`. Beyond the papers.     [ours]

# Letters: B utterances, T encoder frames, U labels.

    gamma^T(t,u) = P^T(the path visits (t,u) | x, y)       L_KD = sum_{t,u} gamma^T(t,u) KL3(t,u)

KL3 is the three-class divergence of `lattice`. The gammas of an utterance sum to T+U, the number of
nodes on a path, so a weight means the same as for `lattice`. Between `lattice` (all nodes alike)
and `one_best` (one path), and blind to corners of the lattice that no path visits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.distiller import Distiller
from compress.distill.lattice import node_divergence
from compress.distill.targets.kind import Kind
from compress.distill.targets.moves import MoveTargets
from compress.distill.view import TeacherView, View
from compress.losses.lattice import node_posteriors, score_lattice
from streaming.errors import InputError


@dataclass(frozen=True)
class Occupancy(Distiller):
    """sharpness: exponent of a path's probability before the posterior is taken.

    1 is the teacher's posterior; below 1 improbable paths count more, and 0 counts all paths
    alike; far above 1 only the best path is left. A trained teacher is sure of its path: below 1
    more of the lattice takes part. Raises InputError for a negative or infinite one.
    """

    sharpness: float = 1.0
    live: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sharpness) and self.sharpness >= 0):
            raise InputError(
                f"occupancy: sharpness is {self.sharpness}: use 1 for the teacher's posterior, "
                "a number from 0 to 1 for a flatter one"
            )

    def needs(self) -> list[Kind]:
        return [MoveTargets()]

    def loss(self, student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
        """sum of gamma * KL3, nats a label, mean over the batch; 0 where both models agree."""
        divergence = node_divergence(student, teacher, batch.target_lengths)
        gamma = occupancy(teacher, batch.target_lengths, self.sharpness)
        per_utterance = (gamma * divergence).sum((1, 2))
        return (per_utterance / batch.target_lengths.clamp(min=1)).mean()

    def figures(self, student: View, teacher: TeacherView | View, batch: Batch) -> dict[str, float]:
        """nodes_a_step: nodes that share a step of the path, exp of their mean entropy.

        1 says that the teacher knows one path: then `one_best` asks for the same with less work.
        """
        gamma = occupancy(teacher, batch.target_lengths, self.sharpness)
        entropy = -torch.xlogy(gamma, gamma).sum((1, 2))
        path_length = teacher.logit_lengths + batch.target_lengths
        return {"nodes_a_step": (entropy / path_length).mean().exp().item()}


@torch.no_grad()
def occupancy(
    teacher: TeacherView | View, target_lengths: Tensor, sharpness: float = 1.0
) -> Tensor:
    """gamma (B, T, U+1): the teacher's node posterior given the labels, 0 in the padding.

    An utterance's gammas sum to T+U. Two passes over the lattice, no network.
    """
    lattice = score_lattice(
        teacher.log_blank * sharpness,
        teacher.log_emit * sharpness,
        teacher.logit_lengths,
        target_lengths,
    )
    return node_posteriors(lattice).to(teacher.log_blank.dtype)
