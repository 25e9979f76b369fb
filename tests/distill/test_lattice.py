"""Collapsed lattice distillation against full softmaxes, by hand and by its properties."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from compress.data.batches import Batch
from compress.distill import parse_distill
from compress.distill.lattice import collapse, lattice, node_divergence
from compress.distill.view import View
from compress.losses.joint import joint_log_probs, next_labels
from streaming.errors import InputError

TARGETS = torch.tensor([[3, 5, 2], [4, 0, 0]])
TARGET_LENGTHS = torch.tensor([3, 1])
LOGIT_LENGTHS = torch.tensor([6, 4])


def batch_of(targets=TARGETS, target_lengths=TARGET_LENGTHS):
    return Batch(None, None, targets, target_lengths, None, [])


def random_network(seed, dtype=torch.float32):
    torch.manual_seed(seed)
    encoded = torch.randn(2, 6, 5, dtype=dtype, requires_grad=True)
    predicted = torch.randn(2, 4, 5, dtype=dtype)
    return encoded, predicted, nn.Linear(5, 9, dtype=dtype)


def view_of(encoded, predicted, output, targets=TARGETS, logit_lengths=LOGIT_LENGTHS):
    moves = joint_log_probs(encoded, predicted, output, targets)
    return View(logit_lengths, *moves)


def full_log_probs(encoded, predicted, output):
    hidden = torch.tanh(encoded.unsqueeze(2) + predicted.unsqueeze(1))
    return output(hidden).log_softmax(-1)


def test_classes_sum_to_one():
    view = view_of(*random_network(0))
    total = collapse(view.log_blank, view.log_emit).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_by_hand():
    """One node, one row: teacher blank 0.75, student 0.5: 0.75 ln 1.5 + 0.25 ln 0.5."""
    lengths = torch.tensor([1])
    empty = torch.zeros(1, 1, 0)
    teacher = View(lengths, torch.tensor([[[0.75]]]).log(), empty)
    student = View(lengths, torch.tensor([[[0.5]]]).log(), empty)
    found = lattice(student, teacher, batch_of(torch.zeros(1, 0), torch.tensor([0])))
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)


def test_equal_models_give_zero_and_no_gradient():
    network = random_network(1)
    student = view_of(*network)
    teacher = View(*(part.detach() for part in student))
    loss = lattice(student, teacher, batch_of())
    (gradient,) = torch.autograd.grad(loss, network[0])
    assert abs(loss.item()) < 1e-6
    assert gradient.abs().max() < 1e-6


def test_collapsed_is_at_most_full():
    ours, theirs = random_network(2), random_network(3)
    collapsed = node_divergence(view_of(*ours), view_of(*theirs), TARGET_LENGTHS)
    student, teacher = full_log_probs(*ours), full_log_probs(*theirs)
    full = (teacher.exp() * (teacher - student)).sum(-1)
    for row, (frames, labels) in enumerate(zip(LOGIT_LENGTHS, TARGET_LENGTHS, strict=True)):
        gap = full[row, :frames, : labels + 1] - collapsed[row, :frames, : labels + 1]
        assert gap.min() > -1e-5


def test_equals_the_sum_over_full_softmaxes():
    """The slow twin: classes added up from the whole vocabulary, node by node."""
    ours, theirs = random_network(4), random_network(5)
    student, teacher = full_log_probs(*ours).exp(), full_log_probs(*theirs).exp()
    labels = next_labels(TARGETS)
    total = 0.0
    for row, (frames, length) in enumerate(zip(LOGIT_LENGTHS, TARGET_LENGTHS, strict=True)):
        nodes = 0.0
        for t in range(int(frames)):
            for u in range(int(length) + 1):
                picked = [0] if u == length else [0, int(labels[row, u])]
                p = [teacher[row, t, u, k].item() for k in picked]
                q = [student[row, t, u, k].item() for k in picked]
                p, q = [*p, 1 - sum(p)], [*q, 1 - sum(q)]
                nodes += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        count = int(frames) * (int(length) + 1)
        total += nodes / count * (int(frames) + int(length)) / int(length)
    found = lattice(view_of(*ours), view_of(*theirs), batch_of())
    assert found.item() == pytest.approx(total / 2, rel=1e-5)


def test_padding_and_batch_order_change_nothing():
    ours, theirs = random_network(6), random_network(7)
    together = lattice(view_of(*ours), view_of(*theirs), batch_of())
    alone = []
    for row, (frames, length) in enumerate(zip(LOGIT_LENGTHS, TARGET_LENGTHS, strict=True)):
        views = [
            view_of(
                encoded[row : row + 1, :frames],
                predicted[row : row + 1, : length + 1],
                output,
                TARGETS[row : row + 1, :length],
                LOGIT_LENGTHS[row : row + 1],
            )
            for encoded, predicted, output in (ours, theirs)
        ]
        lengths = TARGET_LENGTHS[row : row + 1]
        alone.append(lattice(*views, batch_of(TARGETS[row : row + 1, :length], lengths)).item())
    assert together.item() == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_gradcheck():
    encoded, predicted, output = random_network(8, torch.float64)
    teacher = view_of(*random_network(9, torch.float64))
    teacher = View(*(part.detach() for part in teacher))
    assert torch.autograd.gradcheck(
        lambda values: lattice(view_of(values, predicted, output), teacher, batch_of()), encoded
    )


def test_parse():
    assert parse_distill("lattice=0.5") == {"lattice": 0.5}
    assert parse_distill("lattice") == {"lattice": 1.0}
    assert parse_distill("none") == {}


@pytest.mark.parametrize("text", ["latice=1", "lattice=much", "lattice=-1", "lattice=nan", ""])
def test_parse_names_the_fault(text):
    with pytest.raises(InputError, match=r"use none or one of lattice|weight of lattice"):
        parse_distill(text)
