"""The share of a training loss that comes from the teacher: lessons, each from step to step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from compress.data.batches import Batch
from compress.distill.distiller import Distiller
from compress.distill.targets.store import TargetStore, key_of
from compress.distill.view import TeacherView, View
from compress.models.config import TransducerConfig

FIGURES_EVERY = 20  # steps between the figures that cost more than the loss


class Lesson(NamedTuple):
    """A method, its weight and the steps it counts in: first <= step < end."""

    name: str
    weight: float
    first: int
    end: float
    method: Distiller

    def counts_at(self, step: int) -> bool:
        return self.first <= step < self.end


class Teaching(nn.Module):
    """sum of weight * loss over the lessons of a step, from stored targets.

    As a module it holds the methods' adapters, which the optimiser trains and no export sees.
    """

    def __init__(
        self,
        lessons: list[Lesson],
        targets: TargetStore | None,
        student: TransducerConfig,
        teacher: TransducerConfig,
    ) -> None:
        super().__init__()
        assert targets or not lessons, "lessons need the teacher's targets"
        self.lessons = lessons
        self.targets = targets
        self.adapters = nn.ModuleDict()
        for lesson in lessons:
            adapter = lesson.method.adapter(student, teacher)
            if adapter is not None:
                self.adapters[lesson.name] = adapter

    def loss(self, student: View, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum, 0 without lessons, and each lesson's own value."""
        total, parts = student.encoded.new_zeros(()), {}
        lessons = [lesson for lesson in self.lessons if lesson.counts_at(step)]
        if not lessons:
            return total, parts
        student.adapters = self.adapters
        teacher = self.view(student, batch)
        for lesson in lessons:
            part = lesson.method.loss(student, teacher, batch)
            total = total + lesson.weight * part
            parts[lesson.name] = part.item()
            if (step + 1) % FIGURES_EVERY == 0:
                with torch.no_grad():
                    parts |= lesson.method.figures(student, teacher, batch)
        return total, parts

    def view(self, student: View, batch: Batch) -> TeacherView:
        assert self.targets
        ratio = student.model.encoder.subsampling / self.targets.teacher.encoder.subsampling
        num_frames = round(student.encoded.shape[1] * ratio)
        return self.targets.view(batch, [key_of(row) for row in batch.rows], num_frames)
