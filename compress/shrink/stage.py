"""Shrinking while distilling: the student starts as the dense teacher and is pruned on a ramp."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.teaching import Learner, Teaching
from compress.distill.view import task_loss, view_batch
from compress.models.chunks import ChunkDraw
from compress.models.config import TransducerConfig
from compress.models.transducer import Transducer
from compress.shrink.arrange import arrange_rows_
from compress.shrink.evidence import Evidence
from compress.shrink.guard import WerGuard
from compress.shrink.pruner import Cut, build_pruner, choose_layouts
from compress.shrink.schedule import pruning_steps, sparsity_at


class ShrinkStage:
    """Stage of the trainer: the student starts as the teacher and is pruned along the ramp.

    L = L_RNNT + sum of weight * distillation loss, all in nats a label.
    ramp: (first step, last step, steps between prunings). teaching: what the teacher adds.
    cut: what is removed where. start: a student to go on from, pruned from the same teacher.
    guard: keeps the best student, and goes back where pruning cost too much. chunks: what the
    batches are heard at.
    """

    def __init__(
        self,
        teacher: Transducer,
        sparsity: float,
        ramp: tuple[int, int, int],
        schedule: str = "cubic",
        teaching: Teaching | None = None,
        cut: Cut = Cut(),  # noqa: B008  frozen
        start: Transducer | None = None,
        guard: WerGuard | None = None,
        chunks: ChunkDraw = ChunkDraw(),  # noqa: B008  frozen
    ) -> None:
        self.dense = teacher.config
        self.sparsity = sparsity
        self.ramp = ramp
        self.schedule = schedule
        self.cut = cut
        self.guard = guard
        self.chunks = chunks
        student = deepcopy(start or teacher)
        if not start:
            arrange_rows_(student, choose_layouts(teacher, cut))
        self._take(student.requires_grad_(True), teaching or Teaching([], None))
        self.first_sparsity = max(0.0, self.reached)
        self.pruner.check(sparsity)  # refuses what no layout reaches, before any training

    def _take(self, student: Transducer, teaching: Teaching) -> None:
        """Make `student` the one that is trained and pruned."""
        self.model = Learner(student, teaching)
        teaching.fit(student.config, self.dense)
        self._watch()

    def _watch(self) -> None:
        patterns = self.cut.patterns
        score = "magnitude" if patterns == {"layers"} else self.cut.importance
        self.evidence = Evidence(self.student, score, weights=patterns != {"channel"})
        self.pruner = build_pruner(self.student, self.dense, self.cut, self.evidence)

    def rebuild(self, pruner: dict[str, Any]) -> None:
        """The student was put back into an earlier shape: a pruner for it, in its earlier state."""
        self.evidence.close()
        self._watch()
        self.pruner.load_state(pruner)

    @property
    def student(self) -> Transducer:
        return self.model.transducer

    @property
    def reached(self) -> float:
        """The share of the teacher's parameters that is gone."""
        return self.pruner.sparsity

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        chunk_frames = self.chunks.frames_at(step, self.student.encoder.chunk_frames)
        view = view_batch(self.student, batch, chunk_frames=chunk_frames)
        task = task_loss(view, batch)
        taught, parts = self.model.teaching.loss(view, batch, step)
        return task + taught, {"transducer": task.item()} | parts

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        self.pruner.after_step()
        checked = self.guard.after_step(step, self, optimizer) if self.guard else {}
        if step in pruning_steps(*self.ramp) and "back_to" not in checked:
            ramp = self.ramp[:2]
            wanted = sparsity_at(step, *ramp, self.sparsity, self.first_sparsity, self.schedule)
            kept = self.pruner.prune_to(wanted, optimizer)
            self.model.teaching.follow(optimizer, kept)
            self.evidence.clear()
            if step == self.ramp[1]:
                self.evidence.close()
        return {"sparsity": self.reached} | checked

    def state(self) -> dict[str, Any]:
        return {
            "config": self.student.config.model_dump(),
            "weights": self.model.state_dict(),
            "pruner": self.pruner.state(),
            "evidence": self.evidence.state(),
            "first_sparsity": self.first_sparsity,
            "ramp": list(self.ramp),
            "guard": self.guard.state() if self.guard else {},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        student = Transducer(TransducerConfig.model_validate(state["config"]))
        self._take(student, self.model.teaching)
        self.model.load_state_dict(state["weights"])
        self.pruner.load_state(state["pruner"])
        self.evidence.load_state(state["evidence"])
        self.first_sparsity = state["first_sparsity"]
        first, last, every = state["ramp"]
        self.ramp = first, last, every
        if self.guard:
            self.guard.load_state(state["guard"])
