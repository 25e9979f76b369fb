"""Stage 2 of TutorNet (arXiv 2008.00671): `softmax`, beside the transducer loss.

# Letters: B utterances, T encoder frames, U labels, V tokens incl. blank.

    L = sum_t || softmax(a^T_t) - softmax(a^S_t) ||^2                        [paper, for CTC models]

a_t are the encoder logits of `encoder`: the joiner without its predictor.                  [ours]
A squared distance stays below 2 a frame, so frames on which the teacher is wrong cost little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compress.data.batches import Batch
from compress.distill.distiller import Distiller
from compress.distill.encoder import student_logits, teacher_probabilities
from compress.distill.frames import sum_per_label
from compress.distill.targets.encoded import EncodedTargets
from compress.distill.targets.kind import Kind
from compress.distill.view import TeacherView, View


@dataclass(frozen=True)
class Softmax(Distiller):
    """The squared distance a label; it has no settings. Another frame rate is pooled."""

    same_frames: ClassVar[bool] = False
    live: ClassVar[bool] = True

    def needs(self) -> list[Kind]:
        return [EncodedTargets()]

    def loss(self, student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
        ours = student_logits(student, teacher).softmax(-1)
        theirs = teacher_probabilities(student, teacher)
        distance = (theirs - ours).square().sum(-1)
        return sum_per_label(distance, student.logit_lengths, batch.target_lengths)
