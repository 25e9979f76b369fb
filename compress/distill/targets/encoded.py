"""`encoded`: the encoder's output (T, J) in float16; predictor and joiner run again in training.

# Letters: B utterances, T encoder frames, J joint width.

512 bytes a frame of a joint width of 256, 12.8 kB a second. From it come the encoder logits of
CoDERT and TutorNet, hidden representations and whole lattices, each without the encoder.
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


@dataclass(frozen=True)
class EncodedTargets(Kind):
    name: ClassVar[str] = "encoded"

    def label(self, teacher: View, batch: Batch) -> list[Item]:
        encoded = teacher.encoded.float().numpy().astype(np.float16)
        lengths = teacher.logit_lengths.tolist()
        return [{"encoded": encoded[row, :t]} for row, t in enumerate(lengths)]

    def collate(self, items: list[Item], batch: Batch, num_frames: int) -> Tensor:
        """(B, T, J) float32, zeros where padded."""
        width = items[0]["encoded"].shape[1]
        encoded = np.zeros((len(items), num_frames, width), np.float32)
        for row, item in enumerate(items):
            encoded[row, : len(item["encoded"])] = item["encoded"]
        return torch.from_numpy(encoded)
