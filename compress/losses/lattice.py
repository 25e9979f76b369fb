"""Forward and backward scores of the transducer lattice, and the posterior of its moves.

# Letters: B utterances, T encoder frames, U labels.

A path starts at node (0, 0); blank moves (t, u) -> (t+1, u), emit moves (t, u) -> (t, u+1); it
ends with the blank at (T-1, U). With ycum[t, u] = sum_{k<u} log_emit[t, k] the recursion over u is
a cumulative sum in log space, so that a frame is one vectorised step:

    alpha[t] = ycum[t] + logcumsumexp(alpha[t-1] + log_blank[t-1] - ycum[t]),   alpha[0] = ycum[0]
    beta[t]  = revlogcumsumexp(beta[t+1] + log_blank[t] + ycum[t]) - ycum[t]

All of it in float64: the differences of cumulative sums would cost float32 three digits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = -1e30  # log of zero, finite so that differences stay defined


class Lattice(NamedTuple):
    """alpha, beta (B, T, U+1), log_likelihood (B,): all float64."""

    alpha: Tensor
    beta: Tensor
    log_likelihood: Tensor


class Moves(NamedTuple):
    """Posterior of each move: blank (B, T, U+1), emit (B, T, U). Together they sum to T+U."""

    blank: Tensor
    emit: Tensor


def cumulative_emit(log_emit: Tensor) -> Tensor:
    return F.pad(log_emit.double().cumsum(-1), (1, 0))


def forward_scores(log_blank: Tensor, log_emit: Tensor) -> Tensor:
    """alpha (B, T, U+1): log probability of reaching each node."""
    log_blank, ycum = log_blank.double(), cumulative_emit(log_emit)
    rows = [ycum[:, 0]]
    for t in range(1, log_blank.shape[1]):
        arriving = rows[-1] + log_blank[:, t - 1] - ycum[:, t]
        rows.append(ycum[:, t] + arriving.logcumsumexp(-1))
    return torch.stack(rows, 1)


def backward_scores(
    log_blank: Tensor, log_emit: Tensor, logit_lengths: Tensor, target_lengths: Tensor
) -> Tensor:
    """beta (B, T, U+1): log probability of finishing from each node, NEVER outside."""
    log_blank, ycum = log_blank.double(), cumulative_emit(log_emit)
    labels = torch.arange(log_blank.shape[2], device=log_blank.device)
    end = torch.where(labels == target_lengths[:, None], 0.0, NEVER).double()
    beta = torch.full_like(end, NEVER)
    rows = []
    for t in reversed(range(log_blank.shape[1])):
        after = torch.where((logit_lengths == t + 1)[:, None], end, beta)
        leaving = after + log_blank[:, t] + ycum[:, t]
        beta = leaving.flip(-1).logcumsumexp(-1).flip(-1) - ycum[:, t]
        rows.append(beta)
    return torch.stack(rows[::-1], 1)


def score_lattice(
    log_blank: Tensor, log_emit: Tensor, logit_lengths: Tensor, target_lengths: Tensor
) -> Lattice:
    """Both passes; log_likelihood is beta at the start node (the tests compare alpha's end)."""
    alpha = forward_scores(log_blank, log_emit)
    beta = backward_scores(log_blank, log_emit, logit_lengths, target_lengths)
    return Lattice(alpha, beta, beta[:, 0, 0])


def node_posteriors(lattice: Lattice) -> Tensor:
    """gamma (B, T, U+1): the share of all paths' probability that visits each node.

    An utterance's gammas sum to T+U, the number of nodes on a path. Exactly 0 in the padding,
    from where no path ends.
    """
    alpha, beta, total = lattice
    return (alpha + beta - total[:, None, None]).exp()


def move_posteriors(
    lattice: Lattice,
    log_blank: Tensor,
    log_emit: Tensor,
    logit_lengths: Tensor,
    target_lengths: Tensor,
) -> Moves:
    """gamma of every move: exp(alpha + log p(move) + beta after it - log P(y|x))."""
    alpha, beta, total = lattice
    num_frames, num_rows = alpha.shape[1:]
    labels = torch.arange(num_rows, device=alpha.device)
    frames = torch.arange(num_frames, device=alpha.device)
    last = (frames == logit_lengths[:, None] - 1)[:, :, None]
    end = torch.where(labels == target_lengths[:, None], 0.0, NEVER).double()[:, None]
    after_blank = torch.where(last, end, F.pad(beta[:, 1:], (0, 0, 0, 1), value=NEVER))
    start = alpha - total[:, None, None]
    blank = (start + log_blank.double() + after_blank).exp()
    emit = (start[:, :, :-1] + log_emit.double() + beta[:, :, 1:]).exp()
    outside = (frames >= logit_lengths[:, None])[:, :, None]
    beyond = labels > target_lengths[:, None]
    blank = blank.masked_fill(outside | beyond[:, None], 0.0)
    emit = emit.masked_fill(outside | beyond[:, None, 1:], 0.0)
    return Moves(blank, emit)
