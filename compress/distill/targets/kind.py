"""What a kind of stored target must do: describe utterances as arrays, and batch them again.

# Letters: B utterances, T encoder frames, U labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from compress.data.batches import Batch
from compress.distill.view import View

Item = dict[str, np.ndarray]  # what is stored of one utterance
LOWEST = -6e4  # float16 ends at -65504; such a log probability is zero in any precision


class Kind(ABC):
    """A frozen dataclass whose fields are settings: they are stored with the targets, and targets
    of other settings are refused. No padding goes into an item: its arrays end where the
    utterance ends."""

    name: ClassVar[str]

    @abstractmethod
    def label(self, teacher: View, batch: Batch) -> list[Item]:
        """An item for each utterance of the batch; called without gradient, maybe in bfloat16."""

    @abstractmethod
    def collate(self, items: list[Item], batch: Batch, num_frames: int) -> Any:
        """What a TeacherView holds of this kind: tensors padded to `num_frames` frames."""
