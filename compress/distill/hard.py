"""Pseudo-labels alone, the baseline of every other method: `hard`.

# Letters: B utterances.

    L = -log P_S(y_1|x) / |y_1|,  y_1 the teacher's best hypothesis

The student is taught that the teacher is certain. It is the one loss that equal models do not
bring to 0: what is left is the teacher's own doubt in its hypothesis. An empty hypothesis is
learnt as silence.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compress.data.batches import Batch
from compress.distill.distiller import Distiller
from compress.distill.full_sum import score_best
from compress.distill.targets.kind import Kind
from compress.distill.targets.nbest import NBest, NBestTargets
from compress.distill.view import TeacherView, View


@dataclass(frozen=True)
class Hard(Distiller):
    """beam and nbest: the teacher's search; only its best is learnt."""

    beam: int = 4
    nbest: int = 4

    same_frames = False

    def __post_init__(self) -> None:
        self.needs()  # refuses a wrong beam

    def needs(self) -> list[Kind]:
        return [NBestTargets(self.beam, self.nbest)]

    def loss(self, student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
        assert isinstance(teacher, TeacherView)
        nbest: NBest = teacher.stored["nbest"]
        lengths = nbest.hypotheses.lengths[:, 0].clamp(min=1)
        return (-score_best(student, nbest) / lengths).mean()
