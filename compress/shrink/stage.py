"""Shrinking while distilling: the student starts as the dense teacher and is pruned on a ramp."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.teaching import Learner, Teaching
from compress.distill.view import task_loss, view_batch
from compress.models.config import TransducerConfig
from compress.models.transducer import Transducer
from compress.shrink.channel import ChannelPruner, carry_optimizer_state
from compress.shrink.schedule import pruning_steps, sparsity_at


class ShrinkStage:
    """Stage of the trainer: the student starts as the teacher and is pruned along the ramp.

    L = L_RNNT + sum of weight * distillation loss, all in nats a label.
    ramp: (first step, last step, steps between prunings). teaching: what the teacher adds.
    """

    def __init__(
        self,
        teacher: Transducer,
        sparsity: float,
        ramp: tuple[int, int, int],
        schedule: str = "cubic",
        teaching: Teaching | None = None,
    ) -> None:
        self.dense = teacher.config
        self.model = Learner(deepcopy(teacher).requires_grad_(True), teaching)
        self.model.teaching.fit(teacher.config, teacher.config)
        self.sparsity = sparsity
        self.ramp = ramp
        self.schedule = schedule
        self.pruner = ChannelPruner(self.student)
        self.pruner.plan(sparsity)  # refuses what no layout reaches, before any training
        self.prunings = set(pruning_steps(*ramp))

    @property
    def student(self) -> Transducer:
        return self.model.transducer

    @property
    def reached(self) -> float:
        """The share of the teacher's parameters that is gone."""
        return 1 - self.student.num_parameters / self.pruner.num_parameters_dense

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        view = view_batch(self.student, batch)
        task = task_loss(view, batch)
        taught, parts = self.model.teaching.loss(view, batch, step)
        return task + taught, {"transducer": task.item()} | parts

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        if step in self.prunings:
            wanted = sparsity_at(step, *self.ramp[:2], self.sparsity, kind=self.schedule)
            kept = self.pruner.prune_to(wanted)
            carry_optimizer_state(optimizer, self.student, kept)
            self.model.teaching.follow(optimizer, kept)
        return {"sparsity": self.reached}

    def state(self) -> dict[str, Any]:
        return {"config": self.student.config.model_dump(), "weights": self.model.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        config = TransducerConfig.model_validate(state["config"])
        self.model = Learner(Transducer(config), self.model.teaching)
        self.model.teaching.fit(config, self.dense)
        self.model.load_state_dict(state["weights"])
        self.pruner = ChannelPruner(self.student, dense=self.dense)
