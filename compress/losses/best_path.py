"""The best path through a transducer lattice whose labels are given: Viterbi.

# Letters: B utterances, T encoder frames, U labels, N nodes of the longest path.

A path visits T+U nodes: it starts at (0, 0), blank moves (t, u) -> (t+1, u), emit moves
(t, u) -> (t, u+1), and the last move is the blank at (T-1, U). Node (t, u) is where a move is
chosen, so u counts the labels emitted BEFORE it. The best score of node (t, u) is

    best[t,u] = max( best[t-1,u] + log_blank[t-1,u],  best[t,u-1] + log_emit[t,u-1] )

and over u that is a cumulative maximum, as in lattice.py: with ycum[t,u] = sum_{k<u} log_emit[t,k]

    best[t] = ycum[t] + cummax(best[t-1] + log_blank[t-1] - ycum[t]),   best[0] = ycum[0]

The index of the maximum is the row in which the path entered frame t. Every move adds one to t+u,
so node i has t+u = i, and the rows in which the frames are left say all of the path.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from compress.losses.lattice import cumulative_emit


class Path(NamedTuple):
    """Nodes of a path an utterance: frames t and rows u (B, N) int64, 0 where padded; lengths (B,).

    N is the largest T_b + U_b of the batch.
    """

    frames: Tensor
    rows: Tensor
    lengths: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, N) bool: what is no padding."""
        steps = torch.arange(self.frames.shape[1], device=self.lengths.device)
        return steps < self.lengths[:, None]


@torch.no_grad()
def best_path(
    log_blank: Tensor, log_emit: Tensor, logit_lengths: Tensor, target_lengths: Tensor
) -> Path:
    """The likeliest path of the labels, T_b + U_b nodes of each utterance; float64 inside.

    log_blank (B, T, U+1), log_emit (B, T, U), both finite; logit_lengths (B,) in 1..T,
    target_lengths (B,) in 0..U. Two paths may be equally likely: it is one of them.
    """
    entered = entered_rows(log_blank, log_emit)
    leaving = leaving_rows(entered, logit_lengths, target_lengths)
    return path_of(leaving, logit_lengths, target_lengths)


def entered_rows(log_blank: Tensor, log_emit: Tensor) -> Tensor:
    """(B, T, U+1): the row in which the best path to node (t, u) entered frame t."""
    log_blank, ycum = log_blank.double(), cumulative_emit(log_emit)
    best, rows = ycum[:, 0], [torch.zeros_like(ycum[:, 0], dtype=torch.int64)]
    for t in range(1, log_blank.shape[1]):
        score, row = (best + log_blank[:, t - 1] - ycum[:, t]).cummax(-1)
        best = ycum[:, t] + score
        rows.append(row)
    return torch.stack(rows, 1)


def leaving_rows(entered: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """(B, T): the row of each frame's blank, followed back from the end; U_b behind the end."""
    row, rows = target_lengths, []
    for t in reversed(range(entered.shape[1])):
        rows.append(row)
        before = entered[:, t].gather(1, row[:, None])[:, 0]
        row = torch.where(t < logit_lengths, before, row)
    return torch.stack(rows[::-1], 1)


def path_of(leaving: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> Path:
    """The nodes, from the rows (B, T) in which the frames are left."""
    lengths = logit_lengths + target_lengths
    blanks = torch.arange(leaving.shape[1], device=leaving.device) + leaving  # steps that move on
    steps = torch.arange(int(lengths.max()), device=leaving.device).expand(len(leaving), -1)
    frames = torch.searchsorted(blanks, steps.contiguous())
    inside = steps < lengths[:, None]
    return Path(frames * inside, (steps - frames) * inside, lengths)
