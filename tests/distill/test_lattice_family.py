"""What `lattice`, `lattice_full` and `occupancy` have in common."""

from __future__ import annotations

import pytest
import torch

from compress.distill.lattice import Lattice
from compress.distill.lattice_full import LatticeFull
from compress.distill.occupancy import Occupancy
from compress.distill.view import view_batch
from tests.distill.tiny_views import build, store, tiny_batch
from tests.reference.networks import parameters, random_view, select, view_of

METHODS = [Lattice(), LatticeFull(), Occupancy(), Occupancy(sharpness=0.3)]
every_method = pytest.mark.parametrize("method", METHODS, ids=str)


def loss_of(method, student, teacher):
    return method.loss(student, teacher, student.batch)


@every_method
def test_equal_models_give_zero_and_no_gradient(method):
    student, teacher = random_view(1), random_view(1)
    loss = loss_of(method, student, teacher)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    for tensor in parameters(student):
        assert tensor.grad.abs().max() < 1e-6


@every_method
def test_other_models_give_more_than_zero(method):
    assert loss_of(method, random_view(1), random_view(2)) > 0.1


@every_method
def test_gradient_reaches_the_student_only(method):
    """Even of a teacher that is learning and whose tensors carry a graph."""
    student, teacher = random_view(1), random_view(2)
    loss_of(method, student, teacher).backward()
    assert all(tensor.grad.any() for tensor in parameters(student))
    assert all(tensor.grad is None for tensor in parameters(teacher))


@every_method
def test_gradcheck(method):
    student = random_view(3, torch.float64)
    teacher = random_view(4, torch.float64)

    def loss(encoded, predicted, weight, bias):
        joiner = Weights(weight, bias)
        view = view_of(encoded, predicted, joiner, student.batch, student.logit_lengths)
        return loss_of(method, view, teacher)

    assert torch.autograd.gradcheck(loss, parameters(student))


class Weights:
    """A joiner of weights that gradcheck may perturb."""

    def __init__(self, weight, bias):
        self.output, self.weight, self.bias = self, weight, bias


@every_method
def test_a_batch_is_the_mean_of_its_utterances(method):
    """Alone, without padding, each says what it said in the batch."""
    student, teacher = random_view(5), random_view(6)
    alone = [
        loss_of(method, select(student, [row]), select(teacher, [row])).item() for row in range(3)
    ]
    assert loss_of(method, student, teacher).item() == pytest.approx(sum(alone) / 3, rel=1e-5)


@every_method
def test_batch_order_changes_nothing(method):
    student, teacher = random_view(5), random_view(6)
    turned = loss_of(method, select(student, [2, 0, 1]), select(teacher, [2, 0, 1]))
    torch.testing.assert_close(loss_of(method, student, teacher), turned)


@every_method
def test_no_gradient_in_the_padding(method):
    student, teacher = random_view(5), random_view(6)
    loss_of(method, student, teacher).backward()
    for row, (frames, labels) in enumerate(
        zip(student.logit_lengths, student.batch.target_lengths, strict=True)
    ):
        assert not student.encoded.grad[row, frames:].any()
        assert not student.predicted.grad[row, labels + 1 :].any()


@every_method
def test_softmaxes_are_in_float32_under_autocast(method):
    student, teacher = random_view(5, joint_width=64), random_view(6, joint_width=64)
    exact = loss_of(method, student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        student, teacher = random_view(5, joint_width=64), random_view(6, joint_width=64)
        rounded = loss_of(method, student, teacher)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0)


@every_method
def test_a_stored_teacher_says_what_a_running_one_says(method):
    """Through float16 on disk, with another joint width and an utterance without labels."""
    batch, student, teacher = tiny_batch(), build("conformer"), build("lstm", 7, seed=1)
    running = method.loss(view_batch(student, batch), view_batch(teacher, batch), batch)
    stored = store(teacher, batch, method.needs(), num_frames=10)
    loss = method.loss(view_batch(student, batch), stored, batch)
    torch.testing.assert_close(loss, running, rtol=1e-2, atol=0)
    itself = method.loss(view_batch(teacher, batch), stored, batch)
    assert abs(itself) < 1e-4 < loss
