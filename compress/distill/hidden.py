"""Stage 1 of TutorNet (arXiv 2008.00671): `hidden`, an initialisation before any other loss.

# Letters: B utterances, T encoder frames, U labels, J joint width (J_T, J_S: teacher, student).

    L = sum_t w_t || h^T_t - g(h^S_t) ||^2 / J_T                      [paper; mean over units: ours]

h is what an encoder gives the joiner, so any two families of networks have it. g is a learned
projection to the teacher's width, thrown away afterwards.

    w_t = (1 - epsilon) * m_t + epsilon, scaled to mean 1 over the utterance                [ours]

m_t is how likely the teacher emits a label when it arrives at frame t (frames.py); most frames are
blank, and count `epsilon` before scaling. epsilon = 1 weighs all alike and needs no labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from compress.data.batches import Batch
from compress.distill.distiller import Distiller
from compress.distill.frames import (
    EmittingTargets,
    at_student_rate,
    exact,
    sum_per_label,
    valid_frames,
)
from compress.distill.targets.encoded import EncodedTargets
from compress.distill.targets.kind import Kind
from compress.distill.view import TeacherView, View
from compress.models.config import TransducerConfig
from streaming.errors import InputError


@dataclass(frozen=True)
class Hidden(Distiller):
    """epsilon: weight of a frame on which the teacher emits nothing, before scaling."""

    same_frames: ClassVar[bool] = False
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 1:
            raise InputError(
                f"epsilon of hidden is the weight of a blank frame, above 0 and at most 1 (all "
                f"frames alike); got {self.epsilon:g}"
            )
        # Nothing but the weights reads labels, which the teacher must be able to spell.
        object.__setattr__(self, "same_vocabulary", self.epsilon < 1)

    def needs(self) -> list[Kind]:
        return [EncodedTargets()] if self.epsilon == 1 else [EncodedTargets(), EmittingTargets()]

    def adapter(self, student: TransducerConfig, teacher: TransducerConfig) -> nn.Linear:
        """g: the identity where the widths agree, so that equal encoders begin at 0."""
        adapter = nn.Linear(student.encoder.joint_width, teacher.encoder.joint_width)
        if adapter.in_features == adapter.out_features:
            nn.init.eye_(adapter.weight)
            nn.init.zeros_(adapter.bias)
        return adapter

    def loss(self, student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
        ours = exact(student.adapters["hidden"](student.encoded))
        theirs = at_student_rate(exact(teacher.encoded), student, teacher)
        distance = (theirs - ours).square().mean(-1)
        if self.epsilon < 1:
            distance = distance * self.weights(student, teacher)
        return sum_per_label(distance, student.logit_lengths, batch.target_lengths)

    def weights(self, student: View, teacher: TeacherView | View) -> Tensor:
        """w (B, T), mean 1 over each utterance's frames, 0 beyond."""
        assert isinstance(teacher, TeacherView), "weights come from stored targets"
        emits = at_student_rate(teacher.stored["emitting"], student, teacher)
        return frame_weights(emits, student.logit_lengths, self.epsilon)


def frame_weights(emits: Tensor, logit_lengths: Tensor, epsilon: float) -> Tensor:
    """m (B, T) -> w: m of [1, 0] at epsilon 0.5 gives [1, 0.5], scaled [4/3, 2/3]."""
    valid = valid_frames(emits.shape[1], logit_lengths)
    weights = ((1 - epsilon) * emits + epsilon) * valid
    return weights * (logit_lengths / weights.sum(1))[:, None]
