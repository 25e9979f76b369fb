"""`nbest`: the teacher's hypotheses of an utterance and log P_T(y_n|x) of each.

# Letters: B utterances, N hypotheses an utterance, U labels.

Some 100 bytes for a command of two seconds. The score is the full sum over alignments in float32,
not what the search gathered on its way; the best by that score comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.targets.kind import Item, Kind
from compress.distill.view import View
from compress.losses.hypotheses import Hypotheses, score_hypotheses
from compress.search import beam_search, check_beam


class NBest(NamedTuple):
    """hypotheses: best first; scores (B, N) float32, -inf where there is none."""

    hypotheses: Hypotheses
    scores: Tensor


@dataclass(frozen=True)
class NBestTargets(Kind):
    """beam: how many hypotheses the search keeps; nbest: the best of them, which are stored."""

    beam: int = 4
    nbest: int = 4

    name: ClassVar[str] = "nbest"

    def __post_init__(self) -> None:
        check_beam(self.beam, self.nbest)

    def label(self, teacher: View, batch: Batch) -> list[Item]:
        """tokens (sum of lengths,) uint16, lengths (N,) uint16, scores (N,) float32."""
        encoded, logit_lengths = teacher.encoded.float(), teacher.logit_lengths
        found = beam_search(teacher.model, encoded, logit_lengths, self.beam, self.beam)
        hypotheses = pad_hypotheses([[one.tokens for one in some] for some in found])
        with torch.autocast(encoded.device.type, enabled=False):
            scores = score_hypotheses(teacher.model, encoded, logit_lengths, hypotheses)
        items = []
        for some, row in zip(found, scores.cpu().numpy(), strict=True):
            order = np.argsort(-row[: len(some)], kind="stable")[: self.nbest]
            tokens = [some[index].tokens for index in order]
            items.append(
                {
                    "tokens": np.array([token for part in tokens for token in part], np.uint16),
                    "lengths": np.array([len(part) for part in tokens], np.uint16),
                    "scores": row[order].astype(np.float32),
                }
            )
        return items

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
