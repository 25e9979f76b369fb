"""`reference`: log P_T(y|x) of an utterance's own text, one number.

The text is what counts: the teacher writes it in its own tokens, so this is the one target that a
student with another tokenizer can learn from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.targets.kind import Item, Kind
from compress.distill.view import View
from compress.losses.hypotheses import score_labels


@dataclass(frozen=True)
class ReferenceTargets(Kind):
    name: ClassVar[str] = "reference"

    def label(self, teacher: View, batch: Batch) -> list[Item]:
        with torch.autocast(teacher.encoded.device.type, enabled=False):
            scores = score_labels(
                teacher.model,
                teacher.encoded.float(),
                teacher.logit_lengths,
                batch.targets,
                batch.target_lengths,
            )
        return [{"score": score} for score in scores.cpu().numpy().astype(np.float32)[:, None]]

    def collate(self, items: list[Item], batch: Batch, num_frames: int) -> Tensor:
        """(B,) float32, nats."""
        return torch.from_numpy(np.concatenate([item["score"] for item in items]))
