"""The divergence over an N-best, by hand and against enumerated paths."""

from __future__ import annotations

import math

import pytest
import torch

from compress.distill.sequence import Sequence, nbest_divergence
from compress.distill.targets.nbest import NBestTargets
from streaming.errors import InputError
from tests.distill.small_views import (
    TARGET_LENGTHS,
    batch_of,
    enumerated_score,
    taught_by,
    view_of,
)


def test_by_hand():
    """Teacher 3/4 and 1/4, student 1/2 and 1/2; a third hypothesis is missing."""
    theirs = torch.tensor([[0.3, 0.1, 0.0]]).log()
    ours = torch.tensor([[0.02, 0.02, 0.0]]).log()
    found = nbest_divergence(theirs, ours, 1.0)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)


@pytest.mark.parametrize("kappa", [1.0, 3.0])
@pytest.mark.parametrize("seed", [0, 2])
def test_equals_enumerated_paths(kappa, seed):
    student, running = view_of(seed), view_of(seed + 1)
    teacher = taught_by(running)
    labels, lengths, valid = teacher.stored["nbest"].hypotheses
    assert valid.all()
    total = 0.0
    for row in range(3):
        scores = []
        for view in (running, student):
            texts = [labels[row, n, : lengths[row, n]].tolist() for n in range(4)]
            powers = [math.exp(enumerated_score(view, row, text).item() / kappa) for text in texts]
            scores.append([power / sum(powers) for power in powers])
        divergence = sum(p * math.log(p / q) for p, q in zip(*scores, strict=True))
        total += divergence / int(TARGET_LENGTHS[row])
    found = Sequence(kappa).loss(student, teacher, batch_of())
    assert found.item() == pytest.approx(total / 3, rel=1e-4)


def test_equal_models_give_zero_and_no_gradient():
    student = view_of(3)
    loss = Sequence().loss(student, taught_by(student), batch_of())
    (gradient,) = torch.autograd.grad(loss, student.encoded)
    assert abs(loss.item()) < 1e-6
    assert gradient.abs().max() < 1e-6


def test_padding_and_batch_order_change_nothing():
    """Utterances with fewer hypotheses than the others, too."""
    teacher = taught_by(view_of(5))
    hypotheses = teacher.stored["nbest"].hypotheses
    hypotheses.valid[1, 2:] = False
    teacher.stored["nbest"].scores[1, 2:] = -torch.inf
    hypotheses.labels[1, 2:] = 6
    hypotheses.lengths[1, 2:] = hypotheses.labels.shape[2]
    together = Sequence().loss(view_of(4), teacher, batch_of())
    alone = []
    for row in (2, 0, 1):
        kinds = [NBestTargets(nbest=2)] if row == 1 else [NBestTargets()]
        one = taught_by(view_of(5, [row]), kinds)
        if row == 1:
            same = teacher.stored["nbest"].scores[1, :2]
            torch.testing.assert_close(one.stored["nbest"].scores[0], same)
        alone.append(Sequence().loss(view_of(4, [row]), one, batch_of([row])).item())
    assert together.item() == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_gradcheck():
    student = view_of(6, dtype=torch.float64)
    teacher = taught_by(view_of(7))

    def loss(encoded):
        student.encoded = encoded
        return Sequence().loss(student, teacher, batch_of())

    assert torch.autograd.gradcheck(loss, student.encoded)


def test_gradient_reaches_the_student_alone():
    student, running = view_of(10), view_of(11)
    Sequence().loss(student, taught_by(running), batch_of()).backward()
    networks = (student.model.predictor, student.model.joiner)
    assert all(p.grad.abs().sum() > 0 for network in networks for p in network.parameters())
    assert student.encoded.grad.abs().sum() > 0
    assert running.encoded.grad is None
    assert all(p.grad is None for p in running.model.parameters())


def test_one_hypothesis_teaches_nothing():
    kind = NBestTargets(beam=4, nbest=1)
    method = Sequence(nbest=1)
    assert method.needs() == [kind]
    assert method.loss(view_of(8), taught_by(view_of(9), [kind]), batch_of()).item() == 0


@pytest.mark.parametrize("settings", [{"kappa": 0.0}, {"kappa": float("nan")}, {"beam": 3}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(InputError, match=r"a temperature is above 0|as many as are kept"):
        Sequence(**settings)
