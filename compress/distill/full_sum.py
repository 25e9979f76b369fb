"""Full-sum distillation (arXiv 2303.05958): `full_sum`.

# Letters: B utterances, U labels.

    s_M(y) = log P_M(y|x), the sum over all alignments
    L      = d( sg[s_T(y^)], s_S(y^) ) / |y^|        d: l1 or huber                   [ours for d]

One number an utterance crosses from teacher to student, whatever their frame rates, look-ahead
and alignments. The gradient is that of the transducer loss times a number between -1 and 1: it
raises the student's probability of a text that the teacher finds more probable than it does, and
lowers it where the teacher has doubts. That is why it stands a bad teacher or bad labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.distiller import Distiller
from compress.distill.targets.kind import Kind
from compress.distill.targets.nbest import NBest, NBestTargets
from compress.distill.targets.reference import ReferenceTargets
from compress.distill.view import TeacherView, View
from compress.losses.hypotheses import score_labels
from compress.losses.rnnt import transducer_loss
from streaming.errors import InputError

DISTANCES = ("l1", "huber")
LABELS = ("reference", "hypothesis")
HUBER_DELTA = 1.0  # nats a label; below it the distance is quadratic                        [ours]


@dataclass(frozen=True)
class FullSum(Distiller):
    """distance: l1 or huber. labels: y^ is the batch's text (`reference`) or the teacher's best
    `hypothesis`, of its search with `beam` and `nbest`.

    With the batch's text the two models may have different tokenizers: each scores the same text
    in its own tokens. A hypothesis is a sequence of the teacher's tokens, so there they must not.
    """

    distance: str = "l1"
    labels: str = "reference"
    beam: int = 4
    nbest: int = 4

    same_vocabulary = False
    same_frames = False

    def __post_init__(self) -> None:
        check_choice("distance", self.distance, DISTANCES)
        check_choice("labels", self.labels, LABELS)
        self.needs()  # refuses a wrong beam
        object.__setattr__(self, "same_vocabulary", self.labels == "hypothesis")

    def needs(self) -> list[Kind]:
        if self.labels == "reference":
            return [ReferenceTargets()]
        return [NBestTargets(self.beam, self.nbest)]

    def loss(self, student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
        assert isinstance(teacher, TeacherView)
        ours, theirs, lengths = self.scores(student, teacher, batch)
        gap = (ours - theirs.to(ours.dtype)) / lengths.clamp(min=1)
        zero = gap.new_zeros(()).expand_as(gap)
        if self.distance == "l1":
            return F.l1_loss(gap, zero)
        return F.huber_loss(gap, zero, delta=HUBER_DELTA)

    def scores(
        self, student: View, teacher: TeacherView, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """s_S(y^), s_T(y^) and |y^|, each (B,); the task has made the student's lattice already."""
        if self.labels == "reference":
            lengths = batch.target_lengths
            moves = student.log_blank, student.log_emit
            ours = -transducer_loss(*moves, student.logit_lengths, lengths)
            return ours, teacher.stored["reference"], lengths
        nbest: NBest = teacher.stored["nbest"]
        ours = score_best(student, nbest)
        return ours, nbest.scores[:, 0], nbest.hypotheses.lengths[:, 0]


def score_best(student: View, nbest: NBest) -> Tensor:
    """The student's log probability (B,) of the teacher's best hypothesis."""
    labels, lengths, _ = nbest.hypotheses
    best = lengths[:, 0]
    longest = int(best.max())
    return score_labels(
        student.model, student.encoded, student.logit_lengths, labels[:, 0, :longest], best
    )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"full_sum: {name} is {value!r}: use {' or '.join(choices)}")
