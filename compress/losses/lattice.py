"""Forward and backward scores of the transducer lattice, and the posterior of its moves.

# Letters: B utterances, T encoder frames, U labels.

A path starts at node (0, 0); blank moves (t, u) -> (t+1, u), emit moves (t, u) -> (t, u+1); it
ends with the blank at (T-1, U). With ycum[t, u] = sum_{k<u} log_emit[t, k] the recursion over u is
a cumulative sum in log space, so that a frame is one vectorised step:

    alpha[t] = ycum[t] + logcumsumexp(alpha[t-1] + log_blank[t-1] - ycum[t]),   alpha[0] = ycum[0]
    beta[t]  = revlogcumsumexp(beta[t+1] + log_blank[t] + ycum[t]) - ycum[t]

For a = alpha - ycum, and b = beta + ycum turned round in u, both are one addition and one
logcumsumexp a frame, of steps that are known before the loop (see `scan`).

All of it in float64: the differences of cumulative sums would cost float32 three digits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = -1e30  # log of zero, finite so that differences stay defined

Lengths = tuple[Tensor, Tensor]  # logit_lengths, target_lengths


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


def scan(steps: Tensor) -> Tensor:
    """state[t] = logcumsumexp(state[t-1] + steps[t]) over the last axis of (T, N, U+1), from 0.

    A step of NEVER everywhere but in one place starts the state anew there.
    """
    state = torch.zeros_like(steps[0])
    states = []
    for step in steps.unbind():
        state = (state + step).logcumsumexp(-1)
        states.append(state)
    return torch.stack(states)


def forward_steps(log_blank: Tensor, ycum: Tensor) -> Tensor:
    """(T, B, U+1): what leads from a[t-1] to a[t]; the first starts at label 0."""
    steps = (log_blank + ycum)[:, :-1] - ycum[:, 1:]
    start = torch.full_like(ycum[:, :1], NEVER)
    start[..., 0] = 0.0
    return torch.cat([start, steps], 1).transpose(0, 1)


def backward_steps(log_blank: Tensor, ycum: Tensor, lengths: Lengths) -> Tensor:
    """(T, B, U+1), turned round in t and u: what leads from b[t+1] to b[t].

    At an utterance's last frame and behind it every path goes through label U.
    """
    logit_lengths, target_lengths = lengths
    after = F.pad(ycum[:, 1:], (0, 0, 0, 1))
    frames = torch.arange(ycum.shape[1], device=ycum.device)[:, None]
    labels = torch.arange(ycum.shape[2], device=ycum.device)
    last = frames == logit_lengths[:, None, None] - 1
    steps = log_blank + ycum - after.masked_fill(last, 0.0)
    steps = steps.masked_fill(frames >= logit_lengths[:, None, None], 0.0)
    ended = frames >= logit_lengths[:, None, None] - 1
    steps = steps.masked_fill(ended & (labels != target_lengths[:, None, None]), NEVER)
    return steps.flip(1, 2).transpose(0, 1)


def score_lattice(
    log_blank: Tensor, log_emit: Tensor, logit_lengths: Tensor, target_lengths: Tensor
) -> Lattice:
    """Both passes in one loop over T; beta is NEVER where no path ends.

    log_likelihood is beta at the start node (the tests compare alpha's end).
    """
    log_blank, ycum = log_blank.double(), cumulative_emit(log_emit)
    backward = backward_steps(log_blank, ycum, (logit_lengths, target_lengths))
    states = scan(torch.cat([forward_steps(log_blank, ycum), backward], 1)).transpose(0, 1)
    alpha, beta = states.chunk(2)
    outside = torch.arange(ycum.shape[1], device=ycum.device) >= logit_lengths[:, None]
    beta = (beta.flip(1, 2) - ycum).masked_fill(outside[:, :, None], NEVER)
    return Lattice(alpha + ycum, beta, beta[:, 0, 0])


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
