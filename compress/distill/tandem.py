"""Co-learning (CoDERT, arXiv 2106.07734): a teacher that learns in the same steps as its student.

    L = L_RNNT(T) + L_RNNT(S) + weight * L_ED                                               [paper]

colearn   the teacher has its own encoder, predictor and joiner
shared    it has its own encoder only; predictor and joiner are the student's. The two learn from
          each other by what they share, also without L_ED ("implicit distillation")       [paper]

Both hear the same batch, masks of the augmentation included. L_ED gives the teacher no gradient
(encoder.py). The teacher is no part of the student, so no saved model contains it.
"""

from __future__ import annotations

from copy import deepcopy

from torch import Tensor, nn

from compress.data.batches import Batch
from compress.distill import DISTILLERS
from compress.distill.frames import fit_frames
from compress.distill.lessons import Lesson
from compress.distill.teaching import Teaching
from compress.distill.view import View, task_loss
from compress.models.transducer import Transducer
from streaming.errors import InputError

MODES = ("colearn", "shared")


RATE_SHARE = 0.1  # a trained teacher forgets at the rate of a student's first weights       [ours]


class Tandem(nn.Module):
    """A copy of `teacher`, trained or fresh, that is to learn beside `student`.

    In mode "shared" its parameters are its encoder's alone: the student's predictor and joiner
    come with the student's view and are registered once, in the student. Raises InputError for an
    unknown mode, and where a shared joiner does not fit.
    """

    def __init__(self, teacher: Transducer, student: Transducer, mode: str = "colearn") -> None:
        super().__init__()
        if mode not in MODES:
            raise InputError(f"no mode of co-learning {mode!r}: use {' or '.join(MODES)}")
        self.shared = mode == "shared"
        self.rate_share = RATE_SHARE
        learning = deepcopy(teacher).requires_grad_(True)
        if self.shared:
            check_shared(teacher, student)
            self.encoder = learning.encoder
        else:
            self.transducer = learning

    def view(self, student: View, batch: Batch) -> View:
        """The teacher on the batch, with gradient, padded as the student is.

        The two may pad to chunks of other lengths, which a lattice method would trip over.
        """
        model = student.model if self.shared else self.transducer
        encoder = self.encoder if self.shared else self.transducer.encoder
        encoded, logit_lengths = encoder(batch.features, batch.feature_lengths)
        num_frames = student.encoded.shape[1] * student.model.encoder.subsampling
        encoded = fit_frames(encoded, -(-num_frames // encoder.subsampling))
        return View(model, batch, encoded, logit_lengths)


def check_shared(teacher: Transducer, student: Transducer) -> None:
    theirs = teacher.config.encoder.joint_width
    ours = student.config.encoder.joint_width
    if theirs != ours:
        raise InputError(
            f"a shared joiner needs equal joint widths, the teacher's is {theirs} and the "
            f"student's {ours}: set the student's joint_width to {theirs}, or use mode colearn"
        )
    if teacher.encoder.subsampling != student.encoder.subsampling:
        raise InputError(
            f"a shared joiner needs equal frames, the teacher's last "
            f"{10 * teacher.encoder.subsampling} ms and the student's "
            f"{10 * student.encoder.subsampling} ms: use mode colearn"
        )


class CoLearning(Teaching):
    """Teaching by a live teacher: no stored targets, and its own loss joins the sum at every step.

    As a module it holds the teacher beside the adapters, so the optimiser trains both. Raises
    InputError for lessons that cannot be learnt from it.
    """

    def __init__(self, lessons: list[Lesson], tandem: Tandem) -> None:
        super().__init__(lessons, None)
        if not lessons and not tandem.shared:
            raise InputError(
                "a teacher that learns along teaches nothing without a lesson: use encoder=1, or "
                "mode shared"
            )
        for lesson in lessons:
            if not lesson.method.live:
                live = ", ".join(name for name, method in DISTILLERS.items() if method.live)
                raise InputError(
                    f"{lesson.name} learns from stored targets, and a teacher that learns has "
                    f"none: use a frozen teacher, or one of {live}"
                )
        self.tandem = tandem
        self.seen: View | None = None  # the teacher on the batch of the present step

    def loss(self, student: View, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        """L_RNNT(T) and the lessons."""
        self.seen = self.tandem.view(student, batch)
        own = task_loss(self.seen, batch)
        taught, parts = super().loss(student, batch, step)
        self.seen = None
        return own + taught, {"teacher_transducer": own.item(), **parts}

    def view(self, student: View, batch: Batch) -> View:
        return self.seen or self.tandem.view(student, batch)
