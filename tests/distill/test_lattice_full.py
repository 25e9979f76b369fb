"""The divergence over all classes against two loops over the lattice."""

from __future__ import annotations

import math

import pytest
import torch

from compress.distill.lattice import node_divergence
from compress.distill.lattice_full import LatticeFull, joint_of, weighted_divergence
from compress.losses.joint import LOGITS_PER_SLICE
from tests.reference.networks import (
    LOGIT_LENGTHS,
    TARGET_LENGTHS,
    batch_of,
    full_log_probs,
    parameters,
    random_view,
)


def slow_loss(student, teacher):
    ours, theirs = full_log_probs(student), full_log_probs(teacher)
    total = 0.0
    for row, (frames, labels) in enumerate(zip(LOGIT_LENGTHS, TARGET_LENGTHS, strict=True)):
        nodes = [
            sum(
                math.exp(p) * (p - q)
                for p, q in zip(theirs[row, t, u].tolist(), ours[row, t, u].tolist(), strict=True)
            )
            for t in range(int(frames))
            for u in range(int(labels) + 1)
        ]
        total += sum(nodes) / len(nodes) * int(frames + labels) / int(labels)
    return total / len(LOGIT_LENGTHS)


@pytest.mark.parametrize("logits_per_slice", [1, 50, 100, 1_000_000])
def test_equals_two_loops_for_any_slices(monkeypatch, logits_per_slice):
    """One frame of one utterance, of two, two frames of all, everything at once."""
    monkeypatch.setitem(LOGITS_PER_SLICE, "cpu", logits_per_slice)
    student, teacher = random_view(0), random_view(1, joint_width=7)
    loss = LatticeFull().loss(student, teacher, batch_of())
    assert loss.item() == pytest.approx(slow_loss(student, teacher), rel=1e-5)


def test_gradient_equals_autograd_through_the_whole_tensor():
    student, teacher = random_view(2), random_view(3)
    weights = torch.rand(3, 5, 4)
    found = weighted_divergence(joint_of(student), joint_of(teacher), weights)
    gradients = torch.autograd.grad(3 * found, parameters(student))

    hidden = torch.tanh(student.encoded.unsqueeze(2) + student.predicted.unsqueeze(1))
    ours, theirs = student.joiner.output(hidden).log_softmax(-1), full_log_probs(teacher)
    wanted = ((theirs.exp() * (theirs - ours)).sum(-1) * weights).sum()
    torch.testing.assert_close(found, wanted)
    expected = torch.autograd.grad(3 * wanted, parameters(student))
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_collapsed_is_at_most_full_at_every_node():
    student, teacher = random_view(2), random_view(3)
    collapsed = node_divergence(student, teacher, TARGET_LENGTHS)
    ours, theirs = full_log_probs(student), full_log_probs(teacher)
    full = (theirs.exp() * (theirs - ours)).sum(-1)
    for row, (frames, labels) in enumerate(zip(LOGIT_LENGTHS, TARGET_LENGTHS, strict=True)):
        gap = (full - collapsed)[row, :frames, : labels + 1]
        assert gap.min() > -1e-5
        assert gap.max() > 0.1
