"""The share of a training loss that comes from the teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from compress.data.batches import Batch
from compress.distill.lessons import Lesson
from compress.distill.targets.store import TargetStore, key_of
from compress.distill.view import TeacherView, View
from compress.models.config import TransducerConfig
from compress.models.transducer import Transducer

FIGURES_EVERY = 20  # steps between the figures that cost more than the loss


class Teaching(nn.Module):
    """sum of weight * loss over the lessons of a step, from stored targets.

    As a module it holds the methods' adapters, which the optimiser trains and no export sees.
    """

    def __init__(self, lessons: list[Lesson], targets: TargetStore | None) -> None:
        super().__init__()
        self.lessons = lessons
        self.targets = targets
        self.adapters = nn.ModuleDict()

    def fit(self, student: TransducerConfig, teacher: TransducerConfig) -> None:
        """Make the adapters between networks of these widths."""
        for lesson in self.lessons:
            adapter = lesson.method.adapter(student, teacher)
            if adapter is not None:
                self.adapters[lesson.name] = adapter

    def follow(self, optimizer: torch.optim.Optimizer, kept: Mapping[str, Tensor]) -> None:
        """Narrow the adapters after the student's joint width; `kept` as the pruner gives it."""
        joint = kept.get("encoder.project.bias")
        if joint is None:
            return
        for adapter in self.adapters.values():
            narrow_adapter(optimizer, cast("nn.Linear", adapter), joint)

    def loss(self, student: View, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum, 0 without lessons, and each lesson's own value."""
        total = student.encoded.new_zeros((), dtype=torch.float32)
        parts: dict[str, float] = {}
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

    def view(self, student: View, batch: Batch) -> TeacherView | View:
        """What the teacher says of the batch, on its own frames."""
        assert self.targets, "lessons need the teacher's targets"
        ratio = student.model.encoder.subsampling / self.targets.teacher.encoder.subsampling
        num_frames = math.ceil(student.encoded.shape[1] * ratio)
        return self.targets.view(batch, [key_of(row) for row in batch.rows], num_frames)


def narrow_adapter(optimizer: torch.optim.Optimizer, adapter: nn.Linear, joint: Tensor) -> None:
    """Keep the input columns `joint`, of the weight and of its moments in the optimiser."""
    weight = adapter.weight
    if len(joint) == weight.shape[1]:
        return
    wide = weight.shape
    weight.grad = None
    weight.data = weight.data[:, joint].contiguous()
    adapter.in_features = len(joint)
    for key, value in optimizer.state.get(weight, {}).items():
        if isinstance(value, Tensor) and value.shape == wide:
            optimizer.state[weight][key] = value[:, joint].contiguous()


class Learner(nn.Module):
    """What the optimiser sees of a student: its network, and what only helps it to learn."""

    def __init__(self, transducer: Transducer, teaching: Teaching | None = None) -> None:
        super().__init__()
        self.transducer = transducer
        self.teaching = teaching or Teaching([], None)
