"""The transducer loss (arXiv 1211.3711) from log_blank and log_emit alone.

# Letters: B utterances, T encoder frames, U labels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from compress.losses.lattice import move_posteriors, score_lattice


class _TransducerLoss(torch.autograd.Function):
    """-log P(y|x); its gradient is minus the posterior of the moves."""

    @staticmethod
    def forward(
        ctx: Any,
        log_blank: Tensor,
        log_emit: Tensor,
        logit_lengths: Tensor,
        target_lengths: Tensor,
    ) -> Tensor:
        lengths = (logit_lengths, target_lengths)
        lattice = score_lattice(log_blank, log_emit, *lengths)
        moves = move_posteriors(lattice, log_blank, log_emit, *lengths)
        ctx.save_for_backward(moves.blank.to(log_blank.dtype), moves.emit.to(log_emit.dtype))
        return -lattice.log_likelihood.to(log_blank.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        blank, emit = ctx.saved_tensors
        grad = -grad[:, None, None]
        return grad * blank, grad * emit, None, None


def transducer_loss(
    log_blank: Tensor, log_emit: Tensor, logit_lengths: Tensor, target_lengths: Tensor
) -> Tensor:
    """-log P(y|x) in nats, one value an utterance (B,).

    log_blank (B, T, U+1), log_emit (B, T, U); logit_lengths (B,) in 1..T, target_lengths (B,) in
    0..U. A path exists for every T >= 1, because a frame may emit any number of labels.
    """
    return _TransducerLoss.apply(log_blank, log_emit, logit_lengths, target_lengths)
