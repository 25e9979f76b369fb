"""Lattice distillation over all V classes: `lattice_full`, the reference of the collapsed one.

# Letters: B utterances, T encoder frames, U labels, V tokens incl. blank, J joint width.

    L_KD = sum_{t,u} sum_{k < V} P^T(k|t,u) ln( P^T(k|t,u) / P^S(k|t,u) )

Never less than `lattice` at any node: it also asks which wrong labels the teacher finds likely.
(B, T, U+1, V), the reason for collapsing in 2011.06110, is never held here: both joiners run side
by side, part by part, the teacher's on its stored encoder output.                         [ours]
The teacher's joiner on every node of every step is the price: for small vocabularies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from compress.data.batches import Batch
from compress.distill.distiller import Distiller
from compress.distill.lattice import node_weights
from compress.distill.targets.encoded import EncodedTargets
from compress.distill.targets.kind import Kind
from compress.distill.view import TeacherView, View
from compress.losses.joint import (
    JointGradient,
    Part,
    exact,
    in_autocast,
    joint_logits,
    lattice_parts,
)


@dataclass(frozen=True)
class LatticeFull(Distiller):
    """The divergence over the whole vocabulary on every node alike; it has no settings."""

    live: ClassVar[bool] = True

    def needs(self) -> list[Kind]:
        return [EncodedTargets()]

    def loss(self, student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
        """Nats a label, mean over the batch, scaled as `lattice`; 0 where both models agree."""
        weights = node_weights(student, batch.target_lengths)
        return weighted_divergence(joint_of(student), joint_of(teacher), weights)


def joint_of(view: TeacherView | View) -> list[Tensor]:
    """encoded (B, T, J), predicted (B, U+1, J), weight (V, J), bias (V,)."""
    output = view.joiner.output
    return in_autocast(view.encoded, view.predicted, output.weight, output.bias)


def weighted_divergence(ours: list[Tensor], theirs: list[Tensor], weights: Tensor) -> Tensor:
    """sum of weights (B, T, U+1) times KL(theirs || ours) of the nodes' softmaxes, a scalar.

    Gradient reaches `ours` only. The joint widths may differ; T, U and V must not.
    """
    divergence: Tensor = _WeightedDivergence.apply(*ours, *theirs, weights)
    return divergence


class _WeightedDivergence(torch.autograd.Function):
    """Being one number, it takes its gradient in forward: each logit is computed once.

    d KL / d logits = softmax(ours) - softmax(theirs).
    """

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ours, theirs, weights = tensors[:4], tensors[4:8], tensors[8]
        gradient = JointGradient(*ours)
        total = weights.new_zeros((), dtype=exact(ours[0]))
        for part in lattice_parts(*ours):
            hidden, log_probs = log_softmax_part(part, ours)
            _, wanted = log_softmax_part(part, theirs)
            weight = weights[part].unsqueeze(-1)
            probs = wanted.exp()
            total += probs.mul(wanted.sub_(log_probs)).mul_(weight).sum()
            gradient.add(part, hidden, log_probs.exp_().sub_(probs).mul_(weight))
        ctx.save_for_backward(*gradient.tensors())
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        gradients = [tensor * grad.to(tensor.dtype) for tensor in ctx.saved_tensors]
        return *gradients, None, None, None, None, None


def log_softmax_part(part: Part, joint: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """hidden (b, t, U+1, J) and log probabilities (b, t, U+1, V) of one part."""
    hidden, logits = joint_logits(part, *joint)
    return hidden, logits.log_softmax(-1, dtype=hidden.dtype)
