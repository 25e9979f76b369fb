"""Shrinking while distilling: the student starts as the dense teacher and is pruned on a ramp."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill import DISTILLERS
from compress.distill.targets import TargetStore
from compress.distill.view import view_batch
from compress.losses.rnnt import transducer_loss
from compress.models.config import TransducerConfig
from compress.models.transducer import Transducer
from compress.shrink.channel import ChannelPruner, carry_optimizer_state
from compress.shrink.schedule import pruning_steps, sparsity_at


class ShrinkStage:
    """Stage of the trainer: the student starts as the teacher and is pruned along the ramp.

    L = L_RNNT + sum of weight * distillation loss, all in nats a label.
    ramp: (first step, last step, steps between prunings). targets: what the teacher said of the
    training set; needed by any distillation.
    """

    def __init__(
        self,
        teacher: Transducer,
        sparsity: float,
        distill: dict[str, float],
        ramp: tuple[int, int, int],
        schedule: str = "cubic",
        targets: TargetStore | None = None,
    ) -> None:
        assert targets or not distill, "distillation needs the teacher's targets"
        self.dense = teacher.config
        self.model = deepcopy(teacher).requires_grad_(True)
        self.sparsity = sparsity
        self.distill = distill
        self.ramp = ramp
        self.schedule = schedule
        self.targets = targets
        self.pruner = ChannelPruner(self.model)
        self.pruner.plan(sparsity)  # refuses what no layout reaches, before any training
        self.prunings = set(pruning_steps(*ramp))

    @property
    def reached(self) -> float:
        """The share of the teacher's parameters that is gone."""
        return 1 - self.model.num_parameters / self.pruner.num_parameters_dense

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        student = view_batch(self.model, batch)
        moves = student.log_blank, student.log_emit
        losses = transducer_loss(*moves, student.logit_lengths, batch.target_lengths)
        total = (losses / batch.target_lengths.clamp(min=1)).mean()
        parts = {"transducer": total.item()}
        if self.targets:
            teacher = self.targets.view(batch, student.log_blank.shape[1])
            for name, weight in self.distill.items():
                part = DISTILLERS[name](student, teacher, batch)
                parts[name] = part.item()
                total = total + weight * part
        return total, parts

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        if step in self.prunings:
            wanted = sparsity_at(step, *self.ramp[:2], self.sparsity, kind=self.schedule)
            kept = self.pruner.prune_to(wanted)
            carry_optimizer_state(optimizer, self.model, kept)
        return {"sparsity": self.reached}

    def state(self) -> dict[str, Any]:
        return {"config": self.model.config.model_dump(), "weights": self.model.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.model = Transducer(TransducerConfig.model_validate(state["config"]))
        self.model.load_state_dict(state["weights"])
        self.pruner = ChannelPruner(self.model, dense=self.dense)
