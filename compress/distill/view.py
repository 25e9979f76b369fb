"""What a distillation method sees of a student and of its teacher on one batch.

# Letters: B utterances, T encoder frames, U labels, J joint width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from compress.data.batches import Batch
from compress.losses.joint import joint_log_probs
from compress.losses.rnnt import transducer_loss
from compress.models.joiner import Joiner
from compress.models.transducer import Transducer


@dataclass
class View:
    """A running model on one batch: encoded (B, T, J), logit_lengths (B,); the rest on demand.

    adapters: modules that methods train beside the student, by the method's name.
    """

    model: Transducer
    batch: Batch
    encoded: Tensor
    logit_lengths: Tensor
    adapters: nn.ModuleDict = field(default_factory=nn.ModuleDict)

    @property
    def joiner(self) -> Joiner:
        return self.model.joiner

    @cached_property
    def predicted(self) -> Tensor:
        """(B, U+1, J): the predictor after the first u labels of the batch's targets."""
        return self.model.predictor.forward_sequence(self.batch.targets)

    @cached_property
    def moves(self) -> tuple[Tensor, Tensor]:
        """log_blank (B, T, U+1), log_emit (B, T, U)."""
        output = self.model.joiner.output
        return joint_log_probs(self.encoded, self.predicted, output, self.batch.targets)

    @property
    def log_blank(self) -> Tensor:
        return self.moves[0]

    @property
    def log_emit(self) -> Tensor:
        return self.moves[1]


def view_batch(
    model: Transducer,
    batch: Batch,
    adapters: nn.ModuleDict | None = None,
    chunk_frames: int | None = None,
) -> View:
    """Run the encoder on the batch's features, in chunks of its own or of `chunk_frames`."""
    encoded, logit_lengths = model.encoder(batch.features, batch.feature_lengths, chunk_frames)
    return View(model, batch, encoded, logit_lengths, adapters or nn.ModuleDict())


def task_loss(view: View, batch: Batch) -> Tensor:
    """The transducer loss, nats a label, mean over the batch."""
    losses = transducer_loss(*view.moves, view.logit_lengths, batch.target_lengths)
    return (losses / batch.target_lengths.clamp(min=1)).mean()


@dataclass
class TeacherView:
    """The frozen teacher on one batch, read from stored targets; no network runs for it.

    model: its predictor and joiner are at hand, its encoder need not run.
    stored: by a kind's name, what its `collate` gives; see distill/targets.
    """

    model: Transducer
    batch: Batch
    logit_lengths: Tensor
    stored: dict[str, Any]

    @property
    def joiner(self) -> Joiner:
        return self.model.joiner

    @cached_property
    def predicted(self) -> Tensor:
        """(B, U+1, J) of the teacher's predictor, without gradient."""
        with torch.no_grad():
            return self.model.predictor.forward_sequence(self.batch.targets)

    @property
    def encoded(self) -> Tensor:
        """(B, T, J) float32, zeros beyond logit_lengths: kind `encoded`."""
        encoded: Tensor = self.stored["encoded"]
        return encoded

    @property
    def log_blank(self) -> Tensor:
        """(B, T, U+1): kind `moves`."""
        log_blank: Tensor = self.stored["moves"][0]
        return log_blank

    @property
    def log_emit(self) -> Tensor:
        """(B, T, U): kind `moves`."""
        log_emit: Tensor = self.stored["moves"][1]
        return log_emit
