"""TutorNet's second stage: the squared distance of softmaxes."""

from __future__ import annotations

import math

import pytest
import torch

from compress.distill.softmax import Softmax
from compress.distill.targets.encoded import EncodedTargets
from compress.distill.view import View, view_batch
from compress.losses.warmup import encoder_logits
from tests.distill.tiny_views import (
    FAMILIES,
    build,
    build_fast,
    gradients,
    only,
    store,
    tiny_batch,
    train,
)

KINDS = [EncodedTargets()]
METHOD = Softmax()


def test_by_hand():
    """Two frames, no labels: h^T = ln [12, 1, ..] against 0 over V = 11, so 12/22 against 1/11."""
    batch = only(tiny_batch(), [2])
    models = build("lstm"), build("lstm")
    with torch.no_grad():
        for model in models:
            model.joiner.output.weight.zero_()
            model.joiner.output.bias.zero_()
        models[1].joiner.output.bias[0] = math.log(12.0)
    views = [View(model, batch, torch.zeros(1, 2, 12), torch.tensor([2])) for model in models]
    a_frame = (12 / 22 - 1 / 11) ** 2 + 10 * (1 / 22 - 1 / 11) ** 2
    assert METHOD.loss(*views, batch).item() == pytest.approx(2 * a_frame, abs=1e-6)


def test_equals_the_sum_over_frames_and_pieces():
    batch = tiny_batch()
    student = view_batch(build("lstm", seed=1), batch)
    teacher = store(build("conformer", joint_width=16), batch, KINDS, 10)
    ours = encoder_logits(student.joiner, student.encoded).softmax(-1)
    theirs = encoder_logits(teacher.joiner, teacher.encoded).softmax(-1)
    total = 0.0
    for row, labels in enumerate(batch.target_lengths.tolist()):
        frames = sum(
            (p - q) ** 2
            for t in range(int(student.logit_lengths[row]))
            for p, q in zip(theirs[row, t].tolist(), ours[row, t].tolist(), strict=True)
        )
        total += frames / max(1, labels)
    assert METHOD.loss(student, teacher, batch).item() == pytest.approx(total / 3, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_models_give_zero_and_no_gradient(family):
    batch, model = tiny_batch(), build(family)
    loss = METHOD.loss(view_batch(model, batch), view_batch(build(family), batch), batch)
    found = torch.autograd.grad(loss, list(model.encoder.parameters()))
    assert abs(loss.item()) < 1e-9
    assert max(part.abs().max() for part in found) < 1e-6


def test_gradcheck():
    batch = tiny_batch()
    batch.features = batch.features.double()
    student = view_batch(build("lstm").double(), batch)
    teacher = view_batch(build("conformer", seed=1).double(), batch)

    def loss(encoded):
        view = View(student.model, batch, encoded, student.logit_lengths)
        return METHOD.loss(view, teacher, batch)

    assert torch.autograd.gradcheck(loss, student.encoded.detach().requires_grad_())


def test_padding_and_batch_order_change_nothing():
    batch = tiny_batch()
    student, teacher = build("lstm", seed=1), build("conformer", joint_width=16)

    def loss(rows):
        part = only(batch, rows)
        view = view_batch(student, part)
        return METHOD.loss(view, store(teacher, part, KINDS, view.encoded.shape[1]), part).item()

    together = loss([0, 1, 2])
    assert together == pytest.approx(loss([1, 2, 0]), rel=1e-4)
    assert together == pytest.approx(sum(loss([row]) for row in range(3)) / 3, rel=1e-4)


def test_gradient_reaches_the_students_encoder_and_its_logits():
    batch = tiny_batch()
    student = view_batch(build("lstm", seed=1), batch)
    loss = METHOD.loss(student, store(build("conformer"), batch, KINDS, 10), batch)
    assert gradients(loss, student.model) == {"encoder": True, "predictor": False, "joiner": True}


@pytest.mark.parametrize("families", [("lstm", "conformer"), ("conformer", "lstm")])
def test_one_family_learns_from_the_other(families):
    batch = tiny_batch()
    student = build(families[0], seed=1)
    teacher = store(build(families[1], joint_width=16), batch, KINDS, 10)
    losses = train(student, lambda: METHOD.loss(view_batch(student, batch), teacher, batch))
    assert losses[-1] < 0.7 * losses[0]


def test_teacher_of_twice_the_rate():
    batch = tiny_batch()
    student = view_batch(build("lstm", seed=1), batch)
    teacher = store(build_fast(), batch, KINDS, 20)
    theirs = encoder_logits(teacher.joiner, teacher.encoded).softmax(-1)
    mean = (theirs[:, ::2] + theirs[:, 1::2]) / 2
    mean[1, 6] = theirs[1, 12]  # 13 frames: the last has no neighbour
    ours = encoder_logits(student.joiner, student.encoded).softmax(-1)
    distance = (ours - mean).square().sum(-1)
    rows = [distance[0, :10].sum() / 3, distance[1, :7].sum() / 2, distance[2, :2].sum()]
    torch.testing.assert_close(METHOD.loss(student, teacher, batch), sum(rows) / 3)
