"""Training with rounding: the student goes on learning from the same lessons, through its twin."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import Tensor

from compress.data.batches import Batch, BatchSampler
from compress.distill.teaching import Learner, Teaching
from compress.distill.view import task_loss, view_batch
from compress.models.transducer import Transducer
from compress.quantize.ranges import InputRanges, observe_inputs
from compress.quantize.twin import Twin

OBSERVED_BATCHES = 8


class QuantizeLearner(Learner):
    """What the optimiser sees: the student, what helps it to learn, and the ranges."""

    def __init__(self, student: Transducer, teaching: Teaching, ranges: InputRanges) -> None:
        super().__init__(student, teaching)
        self.ranges = ranges


class QuantizeStage:
    """Stage of the trainer: L = L_RNNT + lessons, both of the twin; the student's shape stays.

    sampler: its first batches give the first ranges. first_step: which step of its lessons the
    student has reached. Zeros of the layers in the student's config.sparse stay zeros.

    All runs in float32: bfloat16 has 8 bits of its own, and a second rounding on top of int8's.
    """

    def __init__(
        self,
        student: Transducer,
        teaching: Teaching,
        sampler: BatchSampler,
        first_step: int = 0,
    ) -> None:
        student.requires_grad_(True)
        heard = islice(sampler.from_step(0), OBSERVED_BATCHES)
        self.model = QuantizeLearner(student, teaching, observe_inputs(student, heard))
        self.first_step = first_step
        self.twin = Twin(student, self.model.ranges)
        self.masks = {
            f"{module}.{name}": weight != 0
            for module in student.config.sparse
            for name, weight in student.get_submodule(module).named_parameters()
            if weight.ndim > 1
        }

    @property
    def student(self) -> Transducer:
        return self.model.transducer

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        with torch.autocast(batch.features.device.type, enabled=False):
            view = view_batch(self.twin.refresh(), batch)
            task = task_loss(view, batch)
            taught, parts = self.model.teaching.loss(view, batch, self.first_step + step)
        return task + taught, {"transducer": task.item()} | parts

    @torch.no_grad()
    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        for name, mask in self.masks.items():
            self.student.get_parameter(name).mul_(mask).add_(0.0)  # the sum makes +0.0 of -0.0
        return {}

    def state(self) -> dict[str, Any]:
        return self.model.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)

    def rounded(self) -> Transducer:
        """A copy of the student as it will be exported, to be measured."""
        return self.twin.freeze()
