"""What every distillation method has: what it needs, what it trains, its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from compress.data.batches import Batch
from compress.distill.targets.kind import Kind
from compress.distill.view import TeacherView, View
from compress.models.config import TransducerConfig


class Distiller(ABC):
    """One method. A subclass is a frozen dataclass whose fields are the method's settings.

    same_vocabulary: teacher and student must share the tokenizer.
    same_frames: the lattices must have equally many frames.
    live: it can learn from a teacher that learns too, seen as a View instead of a TeacherView.
    """

    same_vocabulary: ClassVar[bool] = True
    same_frames: ClassVar[bool] = True
    live: ClassVar[bool] = False

    @abstractmethod
    def needs(self) -> list[Kind]:
        """The stored targets that the loss reads."""

    @abstractmethod
    def loss(self, student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
        """Nats a label, mean over the batch; 0 where both models agree."""

    def adapter(self, student: TransducerConfig, teacher: TransducerConfig) -> nn.Module | None:
        """A module trained with the student and thrown away; the loss finds it in the view."""
        return None

    def figures(self, student: View, teacher: TeacherView | View, batch: Batch) -> dict[str, float]:
        """More numbers for the log, asked for every few steps."""
        return {}
