"""`path`: the teacher's best path of the labels, and its softmax on each node of it.

# Letters: B utterances, T encoder frames, U labels, N nodes of a path, V tokens incl. blank,
# k the stored ones, J joint width.

    path = the teacher's best path                                         [paper: arXiv 2110.03334]
    q_i  = softmax of the teacher's logits on node i, blank included                        [paper]

The path is the likeliest of the batch's labels, so it has T+U nodes and ends in the right text:
of the transcript, or of the teacher's own hypothesis where that is the label.             [ours]

Stored are the k likeliest tokens of a node, blank always among them, and all others as ONE class,
`rest`, whose probability is a number of its own: 4 + 4k + 2 bytes a node, 38 for k = 8, 2 to 3 kB
for a command of two seconds, whatever V is.                                               [ours]

Why one class: were its mass spread evenly over the other tokens, a student equal to the teacher
would be pulled away from it. Merged on both sides, equal models give exactly 0 for any k, and with
k = V nothing is merged. The price follows from the chain rule: for temperature 1

    KL over V tokens = KL over k+1 classes + q(rest) * KL of the two models within rest

so too small by what the models differ within rest. Stored is the softmax at temperature 1: log q
is the logits up to a constant, and a loss divides it by its temperature, on the k+1 classes of
both models.

A language model of the same vocabulary can sharpen the targets (shallow fusion, lm_weight):

    q'(blank) = q(blank),   q'(y) = (1 - q(blank)) * softmax_y( log q(y) + lm_weight * log p_LM(y) )

Its state moves on labels only. <unk>, of which it knows nothing, gets probability zero.   [ours]
"""

from __future__ import annotations

import hashlib
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from pathlib import Path as File
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.targets.kind import LOWEST, Item, Kind
from compress.distill.view import View
from compress.lm.fusion import fuse
from compress.losses.best_path import Path, best_path
from compress.losses.path import merge_classes, path_logits
from compress.models.predictors import BLANK
from streaming.errors import InputError

if TYPE_CHECKING:
    from compress.lm import LanguageModel

ARRAYS = "t", "u", "tokens", "log_probs"


class PathTarget(NamedTuple):
    """A batch of stored paths: tokens (B, N, k) int64, log_probs (B, N, k+1) with rest last."""

    path: Path
    tokens: Tensor
    log_probs: Tensor


@dataclass(frozen=True)
class PathTargets(Kind):
    """top_k: tokens stored of a node, blank included; lm: folder of a language model, its hash is
    what targets are told apart by, so it may move. Raises InputError for settings out of range."""

    name: ClassVar[str] = "path"
    folder: ClassVar[str | None] = None  # of each instance, and no field: a copy is the same LM

    top_k: int = 8
    lm: InitVar[str | None] = None
    lm_weight: float = 0.3
    lm_hash: str | None = field(init=False, default=None)

    def __post_init__(self, lm: str | None) -> None:
        if not isinstance(self.top_k, int) or self.top_k < 2:
            raise InputError(
                f"top_k counts blank and is a whole number from 2 on, not {self.top_k}"
            )
        if not isinstance(self.lm_weight, int | float) or not 0 <= self.lm_weight <= 10:
            raise InputError(f"lm_weight is in 0 .. 10, the usual is 0.3, not {self.lm_weight}")
        object.__setattr__(self, "folder", lm)
        object.__setattr__(self, "lm_weight", self.lm_weight if lm else 0.0)
        object.__setattr__(self, "lm_hash", hash_folder(File(lm)) if lm else None)

    @cached_property
    def language_model(self) -> LanguageModel | None:
        return load_language_model(self.folder) if self.folder else None

    def label(self, teacher: View, batch: Batch) -> list[Item]:
        path = best_path(
            teacher.log_blank, teacher.log_emit, teacher.logit_lengths, batch.target_lengths
        )
        log_probs = path_log_probs(teacher, path)
        if self.language_model:
            after = self.language_model.log_probs(batch.targets, batch.target_lengths)
            log_probs = fuse(log_probs, rows_of(after, path, log_probs), self.lm_weight)
        tokens, merged = merge_rest(log_probs, self.top_k)
        return [
            {
                "t": path.frames[row, :length].numpy().astype(np.uint16),
                "u": path.rows[row, :length].numpy().astype(np.uint16),
                "tokens": tokens[row, :length].numpy().astype(np.uint16),
                "log_probs": merged[row, :length].numpy().astype(np.float16),
            }
            for row, length in enumerate(path.lengths.tolist())
        ]

    def collate(self, items: list[Item], batch: Batch, num_frames: int) -> PathTarget:
        """Zeros where padded. Raises InputError where the labels are others than were stored."""
        lengths = torch.tensor([len(item["t"]) for item in items])
        check_labels(items, batch)
        t, u, tokens, log_probs = (pad([item[name] for item in items]) for name in ARRAYS)
        return PathTarget(Path(t, u, lengths), tokens, log_probs)


def path_log_probs(teacher: View, path: Path) -> Tensor:
    """(B, N, V) log softmax on the path's nodes, in float32 even where the encoder was not."""
    with torch.autocast(teacher.encoded.device.type, enabled=False):
        encoded, predicted = teacher.encoded.float(), teacher.predicted.float()
        logits = path_logits(teacher.joiner, encoded, predicted, path.frames, path.rows)
        return logits.log_softmax(-1)


def rows_of(after: Tensor, path: Path, log_probs: Tensor) -> Tensor:
    """The LM's (B, U+1, V) on the path's nodes. Raises InputError for another vocabulary."""
    if after.shape[-1] != log_probs.shape[-1]:
        raise InputError(
            f"the language model has {after.shape[-1]} tokens, the teacher {log_probs.shape[-1]}: "
            "train it with the teacher's tokenizer"
        )
    return after[torch.arange(len(after))[:, None], path.rows]


def merge_rest(log_probs: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """(.., V) -> tokens (.., k), blank first, then from the likeliest on, and log_probs (.., k+1).

    The last class is the rest, of probability zero (LOWEST) where k = V.
    """
    k = min(top_k, log_probs.shape[-1])
    best = log_probs[..., 1:].topk(k - 1).indices + 1
    tokens = torch.cat([torch.full_like(best[..., :1], BLANK), best], -1)
    return tokens, merge_classes(log_probs, tokens).clamp(min=LOWEST)


def pad(arrays: list[np.ndarray]) -> Tensor:
    """Arrays (N, ...) of several lengths -> (B, N, ...), zeros where padded; int64 or float32."""
    dtype = np.float32 if arrays[0].dtype.kind == "f" else np.int64
    longest = max(map(len, arrays))
    padded = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), dtype)
    for row, array in enumerate(arrays):
        padded[row, : len(array)] = array
    return torch.from_numpy(padded)


def check_labels(items: list[Item], batch: Batch) -> None:
    for row, (item, length) in enumerate(zip(items, batch.target_lengths.tolist(), strict=True)):
        if int(item["u"][-1]) != length:
            raise InputError(
                f"the stored path of {batch.rows[row].id} has {item['u'][-1]} labels, its "
                f"transcript {length}: delete the stored targets to make them again"
            )


def load_language_model(folder: str) -> LanguageModel:
    from compress.lm import load_lm

    return load_lm(folder)


def hash_folder(folder: File) -> str:
    """Hash of the files of a folder, their names included. Raises InputError without a folder."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no language model folder: compress train-lm makes one")
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
