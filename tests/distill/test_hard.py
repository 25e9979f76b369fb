"""Pseudo-labels alone, against enumerated paths."""

from __future__ import annotations

import pytest
import torch

from compress.distill.hard import Hard
from compress.distill.targets.nbest import NBestTargets
from streaming.errors import InputError
from tests.distill.small_views import batch_of, enumerated_score, taught_by, view_of


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_equals_enumerated_paths(seed):
    student, teacher = view_of(seed), taught_by(view_of(seed + 1))
    labels, lengths, _ = teacher.stored["nbest"].hypotheses
    total = 0.0
    for row in range(3):
        best = labels[row, 0, : lengths[row, 0]].tolist()
        total -= enumerated_score(student, row, best).item() / max(1, len(best))
    found = Hard().loss(student, teacher, batch_of())
    assert found.item() == pytest.approx(total / 3, rel=1e-5)


def say_blank(view):
    with torch.no_grad():
        view.model.joiner.output.bias[0] += 60
    return view


def test_an_empty_hypothesis_is_learnt_as_silence():
    teacher = taught_by(say_blank(view_of(1)))
    assert teacher.stored["nbest"].hypotheses.lengths[:, 0].tolist() == [0, 0, 0]
    student = view_of(0)
    wanted = -sum(enumerated_score(student, row, []).item() for row in range(3)) / 3
    assert Hard().loss(student, teacher, batch_of()).item() == pytest.approx(wanted, rel=1e-5)


def test_padding_and_batch_order_change_nothing():
    together = Hard().loss(view_of(4), taught_by(view_of(5)), batch_of())
    alone = [
        Hard().loss(view_of(4, [row]), taught_by(view_of(5, [row])), batch_of([row])).item()
        for row in (2, 0, 1)
    ]
    assert together.item() == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_equal_models_keep_the_doubt_of_the_teacher():
    student = view_of(3)
    teacher = taught_by(student)
    lengths = teacher.stored["nbest"].hypotheses.lengths[:, 0].clamp(min=1)
    doubt = -(teacher.stored["nbest"].scores[:, 0] / lengths).mean()
    loss = Hard().loss(student, teacher, batch_of())
    assert loss.item() == pytest.approx(doubt.item(), rel=1e-5)
    assert loss.item() > 0


def test_gradcheck():
    student = view_of(6, dtype=torch.float64)
    teacher = taught_by(view_of(7))

    def loss(encoded):
        student.encoded = encoded
        return Hard().loss(student, teacher, batch_of())

    assert torch.autograd.gradcheck(loss, student.encoded)


def test_gradient_reaches_the_student_alone():
    student, running = view_of(10), view_of(11)
    Hard().loss(student, taught_by(running), batch_of()).backward()
    networks = (student.model.predictor, student.model.joiner)
    assert all(p.grad.abs().sum() > 0 for network in networks for p in network.parameters())
    assert student.encoded.grad.abs().sum() > 0
    assert running.encoded.grad is None
    assert all(p.grad is None for p in running.model.parameters())


def test_the_same_search_as_other_methods():
    assert Hard().needs() == [NBestTargets()]
    with pytest.raises(InputError, match="as many as are kept"):
        Hard(beam=2)
