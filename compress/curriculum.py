"""Training a transducer from nothing: phones, then CTC, then the transducer loss.

A phase says for how many steps which losses count how much, and which data is heard.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor, nn

from compress.data.batches import Batch
from compress.data.espeak import phone_inventory
from compress.losses.joint import joint_log_probs
from compress.losses.rnnt import transducer_loss
from compress.losses.warmup import ctc_loss, phone_loss
from compress.models.config import TransducerConfig
from compress.models.transducer import Transducer


class Phase(BaseModel):
    """Weights of the losses; a loss with weight 0 is not computed."""

    model_config = ConfigDict(extra="forbid")

    steps: PositiveInt
    phone: float = Field(0.0, ge=0)
    ctc: float = Field(0.0, ge=0)
    transducer: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def some_loss_counts(self) -> Phase:
        if not self.phone + self.ctc + self.transducer:
            raise ValueError("give phone, ctc or transducer a weight above 0")
        return self


def task_loss(model: Transducer, encoded: Tensor, logit_lengths: Tensor, batch: Batch) -> Tensor:
    """The transducer loss, nats a label, mean over the batch."""
    predicted = model.predictor.forward_sequence(batch.targets)
    moves = joint_log_probs(encoded, predicted, model.joiner.output, batch.targets)
    losses = transducer_loss(*moves, logit_lengths, batch.target_lengths)
    return (losses / batch.target_lengths.clamp(min=1)).mean()


class CurriculumModel(nn.Module):
    """The transducer and a phone classifier that is thrown away afterwards."""

    def __init__(self, config: TransducerConfig) -> None:
        super().__init__()
        self.transducer = Transducer(config)
        self.phones = nn.Linear(config.encoder.joint_width, len(phone_inventory()))


class CurriculumStage:
    """Stage of the trainer, see compress/trainer.py."""

    def __init__(self, config: TransducerConfig, phases: list[Phase]) -> None:
        self.model = CurriculumModel(config)
        self.phases = phases

    @property
    def transducer(self) -> Transducer:
        return self.model.transducer

    def phase_at(self, step: int) -> Phase:
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        phase, model = self.phase_at(step), self.transducer
        encoded, logit_lengths = model.encoder(batch.features, batch.feature_lengths)
        parts: dict[str, Tensor] = {}
        if phase.phone:
            parts["phone"] = phone_loss(
                self.model.phones(torch.tanh(encoded)), batch.phones, model.encoder.subsampling
            )
        if phase.ctc:
            parts["ctc"] = ctc_loss(
                model.joiner, encoded, logit_lengths, batch.targets, batch.target_lengths
            )
        if phase.transducer:
            parts["transducer"] = task_loss(model, encoded, logit_lengths, batch)
        total = sum(getattr(phase, name) * part for name, part in parts.items())
        assert isinstance(total, Tensor), "Phase: at least one weight is positive"
        return total, {name: part.item() for name, part in parts.items()}

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return self.model.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)
