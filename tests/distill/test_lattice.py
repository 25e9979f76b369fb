"""Collapsed lattice distillation by hand and against full softmaxes."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from compress.distill.lattice import Lattice, collapse, node_weights
from compress.losses.joint import next_labels
from tests.reference.networks import (
    LOGIT_LENGTHS,
    TARGET_LENGTHS,
    TARGETS,
    batch_of,
    full_log_probs,
    random_view,
)


def test_classes_sum_to_one():
    view = random_view(0)
    total = collapse(view.log_blank, view.log_emit).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_by_hand():
    """One node, one row: teacher blank 0.75, student 0.5: 0.75 ln 1.5 + 0.25 ln 0.5."""

    def view(blank):
        log_blank = torch.tensor([[[blank]]]).log()
        return SimpleNamespace(
            log_blank=log_blank, log_emit=torch.zeros(1, 1, 0), logit_lengths=torch.tensor([1])
        )

    batch = batch_of(torch.zeros(1, 0), torch.tensor([0]))
    found = Lattice().loss(view(0.5), view(0.75), batch)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)


def test_a_certain_teacher_gives_finite_loss_and_gradient():
    """Blank of probability 1 leaves no remainder in float32."""
    student = random_view(0)
    shape = student.log_blank.shape
    teacher = SimpleNamespace(
        log_blank=torch.zeros(shape),
        log_emit=torch.full((*shape[:2], 3), -6e4),
        logit_lengths=LOGIT_LENGTHS,
    )
    loss = Lattice().loss(student, teacher, batch_of())
    loss.backward()
    assert loss.isfinite()
    assert student.encoded.grad.isfinite().all()


def test_node_weights_give_each_utterance_its_path_length_a_label():
    weights = node_weights(random_view(0), TARGET_LENGTHS)
    wanted = (LOGIT_LENGTHS + TARGET_LENGTHS) / TARGET_LENGTHS / 3
    torch.testing.assert_close(weights.sum((1, 2)), wanted)


def test_equals_the_sum_over_full_softmaxes():
    """The slow twin: classes added up from the whole vocabulary, node by node."""
    ours, theirs = random_view(4), random_view(5)
    student, teacher = full_log_probs(ours).exp(), full_log_probs(theirs).exp()
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
    found = Lattice().loss(ours, theirs, batch_of())
    assert found.item() == pytest.approx(total / 3, rel=1e-5)
