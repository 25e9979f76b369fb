"""`moves`: log_blank (T, U+1) and log_emit (T, U) of every lattice node, float16.

# Letters: B utterances, T encoder frames, U labels.

Two numbers a node are 2 kB for a command of two seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.targets.kind import LOWEST, Item, Kind
from compress.distill.view import View


@dataclass(frozen=True)
class MoveTargets(Kind):
    name: ClassVar[str] = "moves"

    def label(self, teacher: View, batch: Batch) -> list[Item]:
        log_blank, log_emit = (part.clamp(min=LOWEST).numpy() for part in teacher.moves)
        lengths = zip(teacher.logit_lengths.tolist(), batch.target_lengths.tolist(), strict=True)
        return [
            {
                "log_blank": log_blank[row, :t, : u + 1].astype(np.float16),
                "log_emit": log_emit[row, :t, :u].astype(np.float16),
            }
            for row, (t, u) in enumerate(lengths)
        ]

    def collate(self, items: list[Item], batch: Batch, num_frames: int) -> tuple[Tensor, Tensor]:
        """log_blank (B, T, U+1), log_emit (B, T, U), zeros where padded."""
        num_labels = batch.targets.shape[1]
        log_blank = np.zeros((len(items), num_frames, num_labels + 1), np.float32)
        log_emit = np.zeros((len(items), num_frames, num_labels), np.float32)
        for row, item in enumerate(items):
            t, u = item["log_emit"].shape
            log_blank[row, :t, : u + 1] = item["log_blank"]
            log_emit[row, :t, :u] = item["log_emit"]
        return torch.from_numpy(log_blank), torch.from_numpy(log_emit)
