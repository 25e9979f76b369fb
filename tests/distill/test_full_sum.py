"""Full-sum distillation against enumerated paths, and what its gradient must be."""

from __future__ import annotations

import pytest
import torch

from compress.distill.full_sum import FullSum
from compress.losses.rnnt import transducer_loss
from streaming.errors import InputError
from tests.distill.small_views import (
    LOGIT_LENGTHS,
    TARGET_LENGTHS,
    TARGETS,
    batch_of,
    enumerated_score,
    taught_by,
    view_of,
)

METHODS = [
    FullSum(distance, labels)
    for distance in ("l1", "huber")
    for labels in ("reference", "hypothesis")
]


def labels_of(method, teacher, row):
    if method.labels == "reference":
        return TARGETS[row, : TARGET_LENGTHS[row]].tolist()
    labels, lengths, _ = teacher.stored["nbest"].hypotheses
    return labels[row, 0, : lengths[row, 0]].tolist()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [0, 2])
def test_equals_enumerated_paths(method, seed):
    student, running = view_of(seed), view_of(seed + 1)
    teacher = taught_by(running)
    total = 0.0
    for row in range(3):
        labels = labels_of(method, teacher, row)
        gap = enumerated_score(student, row, labels) - enumerated_score(running, row, labels)
        gap = abs(gap.item()) / max(1, len(labels))
        quadratic = method.distance == "huber" and gap < 1
        total += 0.5 * gap**2 if quadratic else gap - 0.5 * (method.distance == "huber")
    found = method.loss(student, teacher, batch_of())
    assert found.item() == pytest.approx(total / 3, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_equal_models_give_zero_and_no_gradient(method):
    student = view_of(3, dtype=torch.float64)
    teacher = taught_by(student)
    for name in ("reference", "nbest"):  # stored in float32
        assert name in teacher.stored
    loss = method.loss(student, teacher, batch_of())
    assert abs(loss.item()) < 1e-6
    if method.distance == "huber":
        (gradient,) = torch.autograd.grad(loss, student.encoded)
        assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_padding_and_batch_order_change_nothing(method):
    together = method.loss(view_of(4), taught_by(view_of(5)), batch_of())
    alone = [
        method.loss(view_of(4, [row]), taught_by(view_of(5, [row])), batch_of([row])).item()
        for row in (2, 0, 1)
    ]
    assert together.item() == pytest.approx(sum(alone) / 3, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_gradcheck(method):
    student = view_of(6, dtype=torch.float64)
    teacher = taught_by(view_of(7))

    def loss(encoded):
        student.encoded = encoded
        student.__dict__.pop("moves", None)
        return method.loss(student, teacher, batch_of())

    assert torch.autograd.gradcheck(loss, student.encoded)


def test_gradient_is_the_transducer_with_the_sign_of_the_gap():
    student = view_of(12)
    teacher = taught_by(view_of(13))
    scores = -transducer_loss(student.log_blank, student.log_emit, LOGIT_LENGTHS, TARGET_LENGTHS)
    signs = torch.sign(scores - teacher.stored["reference"])
    assert set(signs.tolist()) == {-1.0, 1.0}, "a fair test has both"
    loss = FullSum().loss(student, teacher, batch_of())
    (found,) = torch.autograd.grad(loss, student.encoded, retain_graph=True)
    signed = (signs * scores / TARGET_LENGTHS).mean()
    (wanted,) = torch.autograd.grad(signed, student.encoded)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("method", METHODS)
def test_gradient_reaches_the_student_alone(method):
    student, running = view_of(10), view_of(11)
    method.loss(student, taught_by(running), batch_of()).backward()
    networks = (student.model.predictor, student.model.joiner)
    assert all(p.grad.abs().sum() > 0 for network in networks for p in network.parameters())
    assert student.encoded.grad.abs().sum() > 0
    assert running.encoded.grad is None
    assert all(p.grad is None for p in running.model.parameters())


def test_the_text_alone_crosses_between_tokenizers():
    assert not FullSum().same_vocabulary
    assert FullSum(labels="hypothesis").same_vocabulary


@pytest.mark.parametrize("settings", [{"distance": "l2"}, {"labels": "text"}, {"beam": 2}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(InputError, match=r"use l1 or huber|use reference or hypo|as many as are"):
        FullSum(**{"labels": "hypothesis", **settings})
