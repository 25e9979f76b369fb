"""Full-sum distillation over the teacher's N-best (arXiv 2303.05958): `sequence`.

# Letters: B utterances, N hypotheses.

    p_M(n) = softmax_n( log P_M(y_n|x) / kappa )     over the teacher's N-best, all different
    L      = KL( sg[p_T] || p_S ) / |y|                                          [ours in form]

Only the order and the distances of the hypotheses are learnt, not their probability as such: a
weight for the labels, beside the transducer loss. With one hypothesis it is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.distiller import Distiller
from compress.distill.targets.kind import Kind
from compress.distill.targets.nbest import NBest, NBestTargets
from compress.distill.view import TeacherView, View
from compress.losses.hypotheses import score_hypotheses
from streaming.errors import InputError


@dataclass(frozen=True)
class Sequence(Distiller):
    """kappa: temperature of both distributions; beam and nbest: the teacher's search."""

    kappa: float = 1.0
    beam: int = 4
    nbest: int = 4

    same_frames = False

    def __post_init__(self) -> None:
        if not 0 < self.kappa < float("inf"):
            raise InputError(f"sequence: kappa is {self.kappa}: a temperature is above 0, near 1")
        self.needs()  # refuses a wrong beam

    def needs(self) -> list[Kind]:
        return [NBestTargets(self.beam, self.nbest)]

    def loss(self, student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
        assert isinstance(teacher, TeacherView)
        nbest: NBest = teacher.stored["nbest"]
        ours = score_hypotheses(
            student.model, student.encoded, student.logit_lengths, nbest.hypotheses
        )
        divergence = nbest_divergence(nbest.scores.to(ours.dtype), ours, self.kappa)
        return (divergence / batch.target_lengths.clamp(min=1)).mean()


def nbest_divergence(theirs: Tensor, ours: Tensor, kappa: float) -> Tensor:
    """KL(teacher || student) over hypotheses, (B,); scores (B, N), -inf where there is none."""
    valid = torch.isfinite(theirs)
    p = (theirs / kappa).log_softmax(-1)
    q = (ours / kappa).log_softmax(-1)
    return (p.exp() * (p - q).masked_fill(~valid, 0.0)).sum(-1)
