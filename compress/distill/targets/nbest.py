"""`nbest`: the teacher's hypotheses of an utterance and log P_T(y_n|x) of each.

# Letters: B utterances, N hypotheses an utterance, U labels.

Some 100 bytes for a command of two seconds. The score is the full sum over alignments in float32,
not what the search gathered on its way; the best by that score comes first. With a language model
in the search its order stays, and the scores are still the teacher's alone.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.targets.kind import Item, Kind
from compress.distill.targets.path import hash_folder, load_language_model
from compress.distill.view import View
from compress.losses.hypotheses import Hypotheses, score_hypotheses
from compress.search import beam_search, check_beam
from streaming.errors import InputError

if TYPE_CHECKING:
    from compress.lm import LanguageModel


class NBest(NamedTuple):
    """hypotheses: best first; scores (B, N) float32, -inf where there is none."""

    hypotheses: Hypotheses
    scores: Tensor


@dataclass(frozen=True)
class NBestTargets(Kind):
    """beam: how many hypotheses the search keeps; nbest: the best of them, which are stored.

    lm: folder of a language model over the teacher's tokens, told apart by its hash.
    """

    name: ClassVar[str] = "nbest"
    folder: ClassVar[str | None] = None  # of each instance, and no field: a copy is the same LM

    beam: int = 4
    nbest: int = 4
    lm: InitVar[str | None] = None
    lm_weight: float = 0.3
    lm_hash: str | None = field(init=False, default=None)

    def __post_init__(self, lm: str | None) -> None:
        check_beam(self.beam, self.nbest)
        if not 0 <= self.lm_weight <= 10:
            raise InputError(f"lm_weight is in 0 .. 10, the usual is 0.3, not {self.lm_weight}")
        object.__setattr__(self, "folder", lm)
        object.__setattr__(self, "lm_weight", self.lm_weight if lm else 0.0)
        object.__setattr__(self, "lm_hash", hash_folder(Path(lm)) if lm else None)

    @cached_property
    def language_model(self) -> LanguageModel | None:
        return load_language_model(self.folder) if self.folder else None

    def label(self, teacher: View, batch: Batch) -> list[Item]:
        """tokens (sum of lengths,) uint16, lengths (N,) uint16, scores (N,) float32."""
        encoded, logit_lengths = teacher.encoded.float(), teacher.logit_lengths
        found = beam_search(
            teacher.model,
            encoded,
            logit_lengths,
            self.beam,
            self.beam,
            self.language_model,
            self.lm_weight,
        )
        hypotheses = pad_hypotheses([[one.tokens for one in some] for some in found])
        with torch.autocast(encoded.device.type, enabled=False):
            scores = score_hypotheses(teacher.model, encoded, logit_lengths, hypotheses)
        return [
            self.describe([one.tokens for one in some], row[: len(some)])
            for some, row in zip(found, scores.cpu().numpy(), strict=True)
        ]

    def describe(self, texts: list[list[int]], scores: np.ndarray) -> Item:
        """The item of one utterance: token lists as the search orders them, and their scores."""
        order = np.arange(len(texts)) if self.folder else np.argsort(-scores, kind="stable")
        order = order[: self.nbest]
        chosen = [np.array(texts[index], np.uint16) for index in order]
        return {
            "tokens": np.concatenate(chosen),
            "lengths": np.array([len(tokens) for tokens in chosen], np.uint16),
            "scores": scores[order].astype(np.float32),
        }

    def collate(self, items: list[Item], batch: Batch, num_frames: int) -> NBest:
        hypotheses = pad_hypotheses([split_tokens(item) for item in items])
        scores = torch.full(hypotheses.valid.shape, -torch.inf)
        for row, item in enumerate(items):
            scores[row, : len(item["scores"])] = torch.from_numpy(item["scores"].copy())
        return NBest(hypotheses, scores)


def split_tokens(item: Item) -> list[list[int]]:
    """The token lists of one utterance's hypotheses, best first."""
    ends = np.cumsum(item["lengths"], dtype=np.int64)
    return [part.tolist() for part in np.split(item["tokens"], ends[:-1])]


def pad_hypotheses(found: list[list[list[int]]]) -> Hypotheses:
    """Token lists, by utterance and hypothesis, as tensors; an empty hypothesis stays one."""
    most = max(map(len, found))
    longest = max(len(tokens) for some in found for tokens in some)
    labels = np.zeros((len(found), most, max(1, longest)), np.int64)
    lengths = np.zeros((len(found), most), np.int64)
    valid = np.zeros((len(found), most), bool)
    for row, some in enumerate(found):
        for number, tokens in enumerate(some):
            labels[row, number, : len(tokens)] = tokens
            lengths[row, number] = len(tokens)
            valid[row, number] = True
    return Hypotheses(*map(torch.from_numpy, (labels, lengths, valid)))
