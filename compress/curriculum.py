"""Training a transducer from nothing: phones, then CTC, then the transducer loss.

A phase says for how many steps which losses count how much. A student also has lessons from a
teacher (distill/lessons.py), each with steps of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from compress.data.batches import Batch
from compress.data.espeak import phone_inventory
from compress.distill.teaching import Learner
from compress.distill.view import task_loss, view_batch
from compress.losses.warmup import ctc_loss, phone_loss
from compress.models.chunks import ChunkDraw
from compress.models.config import TransducerConfig
from compress.models.transducer import Transducer


class Phase(BaseModel):
    """Weights of the losses; a loss with weight 0 is not computed."""

    model_config = ConfigDict(extra="forbid")

    steps: PositiveInt
    phone: float = Field(0.0, ge=0)
    ctc: float = Field(0.0, ge=0)
    transducer: float = Field(0.0, ge=0)


class CurriculumModel(Learner):
    """The student and a phone classifier that is thrown away afterwards."""

    def __init__(self, config: TransducerConfig) -> None:
        super().__init__(Transducer(config))
        self.phones = nn.Linear(config.encoder.joint_width, len(phone_inventory()))


class CurriculumStage:
    """Stage of the trainer, see compress/trainer.py. chunks: what the batches are heard at."""

    def __init__(
        self,
        config: TransducerConfig,
        phases: list[Phase],
        chunks: ChunkDraw = ChunkDraw(),  # noqa: B008  frozen
    ) -> None:
        self.model = CurriculumModel(config)
        self.phases = phases
        self.chunks = chunks

    @property
    def student(self) -> Transducer:
        return self.model.transducer

    def phase_at(self, step: int) -> Phase:
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        phase, model = self.phase_at(step), self.student
        chunk_frames = self.chunks.frames_at(step, model.encoder.chunk_frames)
        view = view_batch(model, batch, chunk_frames=chunk_frames)
        parts: dict[str, Tensor] = {}
        if phase.phone:
            parts["phone"] = phone_loss(
                self.model.phones(torch.tanh(view.encoded)), batch.phones, model.encoder.subsampling
            )
        if phase.ctc:
            lengths = view.logit_lengths, batch.targets, batch.target_lengths
            parts["ctc"] = ctc_loss(model.joiner, view.encoded, *lengths)
        if phase.transducer:
            parts["transducer"] = task_loss(view, batch)
        total, taught = self.model.teaching.loss(view, batch, step)
        for name, part in parts.items():
            total = total + getattr(phase, name) * part
        return total, {name: part.item() for name, part in parts.items()} | taught

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return self.model.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)
