"""One-best-path distillation (arXiv 2110.03334): `one_best`.

# Letters: B utterances, T encoder frames, U labels, N nodes of a path, V tokens incl. blank,
# k those that the targets tell apart.

    L_KD = - sum_i sum_k q_i(k) ln softmax( z^S[t_i, u_i] / temperature )_k                 [paper]

over the T+U nodes (t_i, u_i) of the teacher's best path, q the teacher's softmax there. We take
the divergence from q instead, which differs by q's entropy, a constant: gradients are the same,
and equal models give 0. Per label, mean over the batch, times temperature^2, so that a weight
means the same for any of them.                                                              [ours]

A full-context teacher emits earlier than a streaming student can, so its node (t, u) supervises
(t + shift, u); what falls behind the student's last frame is dropped. Windowed, a node is matched
in whichever of the frames {shift-2, shift-1, shift} later it fits best.                     [ours]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.distiller import Distiller
from compress.distill.targets.kind import Kind
from compress.distill.targets.path import PathTarget, PathTargets
from compress.distill.view import TeacherView, View
from compress.losses.path import merge_classes, path_logits
from streaming.errors import InputError

LARGEST_SHIFT = 10  # encoder frames: 400 ms


@dataclass(frozen=True)
class OneBest(Distiller):
    """shift in frames of 40 ms; top_k, lm and lm_weight: what targets are stored, see PathTargets.

    Raises InputError for a setting out of range.
    """

    temperature: float = 1.0
    shift: int = 0
    window: bool = False
    top_k: int = 8
    lm: str | None = None
    lm_weight: float = 0.3

    def __post_init__(self) -> None:
        number = isinstance(self.temperature, int | float)
        if not number or not 0.1 <= self.temperature <= 100:
            raise InputError(f"temperature is in 0.1 .. 100, not {self.temperature}: 1 for none")
        if self.shift not in range(LARGEST_SHIFT + 1):
            raise InputError(f"shift is in 0 .. {LARGEST_SHIFT} frames of 40 ms, not {self.shift}")
        if not isinstance(self.window, bool):
            raise InputError(f"window is true or false, not {self.window}")
        self.needs()

    @property
    def shifts(self) -> list[int]:
        earliest = max(0, self.shift - 2) if self.window else self.shift
        return list(range(earliest, self.shift + 1))

    def needs(self) -> list[Kind]:
        return [PathTargets(self.top_k, self.lm, self.lm_weight)]

    def loss(self, student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
        assert isinstance(teacher, TeacherView), "the path is stored"
        target: PathTarget = teacher.stored["path"]
        theirs = (target.log_probs / self.temperature).log_softmax(-1)
        divergences = [
            self.divergence(student, target, theirs, target.path.frames + shift)
            for shift in self.shifts
        ]
        nodes = torch.stack(divergences).amin(0) * self.kept(student, target)
        per_label = nodes.sum(1) / batch.target_lengths.clamp(min=1)
        return self.temperature**2 * per_label.mean()

    def divergence(
        self, student: View, target: PathTarget, theirs: Tensor, frames: Tensor
    ) -> Tensor:
        """(B, N) KL of the student's k+1 classes in `frames` from the teacher's, (B, N, k+1)."""
        frames = torch.minimum(frames, student.logit_lengths[:, None] - 1)
        logits = path_logits(
            student.joiner, student.encoded, student.predicted, frames, target.path.rows
        )
        ours = (merge_classes(logits, target.tokens) / self.temperature).log_softmax(-1)
        return (theirs.exp() * (theirs - ours)).sum(-1)

    def kept(self, student: View, target: PathTarget) -> Tensor:
        """(B, N) bool: nodes whose latest frame the student has, the same for every window."""
        latest = target.path.frames + self.shift
        return target.path.valid & (latest < student.logit_lengths[:, None])
