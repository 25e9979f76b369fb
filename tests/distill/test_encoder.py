"""CoDERT's loss on encoder logits: by hand, by its twin, by what it must not change."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from compress.distill.encoder import Encoder, encoder_entropy, entropy, joint_entropy
from compress.distill.targets.encoded import EncodedTargets
from compress.distill.view import View, view_batch
from compress.losses.warmup import encoder_logits
from compress.models.predictors import BLANK
from streaming.errors import InputError
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
from tests.reference.paths import node_posteriors

KINDS = [EncodedTargets()]
METHOD = Encoder()


def pair(student_family="lstm", teacher_family="conformer"):
    """A student's view and its frozen teacher's, of other widths and weights."""
    batch = tiny_batch()
    student = view_batch(build(student_family, seed=1), batch)
    return student, store(build(teacher_family, joint_width=16), batch, KINDS, 10), batch


def test_by_hand():
    """One frame, h^T = ln [3, 1, ..], h^S = 0 over V = 11: ln 11 minus the teacher's entropy."""
    batch = only(tiny_batch(), [2])
    models = build("lstm"), build("lstm")
    with torch.no_grad():
        for model in models:
            model.joiner.output.weight.zero_()
            model.joiner.output.bias.zero_()
        models[1].joiner.output.bias[0] = math.log(3.0)
    views = [View(model, batch, torch.zeros(1, 1, 12), torch.tensor([1])) for model in models]
    found = METHOD.loss(*views, batch)
    wanted = 3 / 13 * math.log(3 / 13 * 11) + 10 / 13 * math.log(1 / 13 * 11)
    assert found.item() == pytest.approx(wanted, abs=1e-6)


def test_equals_the_sum_over_frames_and_pieces():
    student, teacher, batch = pair()
    ours = encoder_logits(student.joiner, student.encoded).log_softmax(-1)
    theirs = encoder_logits(teacher.joiner, teacher.encoded).log_softmax(-1)
    total = 0.0
    for row, labels in enumerate(batch.target_lengths.tolist()):
        frames = 0.0
        for t in range(int(student.logit_lengths[row])):
            for p, q in zip(theirs[row, t].tolist(), ours[row, t].tolist(), strict=True):
                frames += math.exp(p) * (p - q)
        total += frames / max(1, labels)
    assert METHOD.loss(student, teacher, batch).item() == pytest.approx(total / 3, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_models_give_zero_and_no_gradient(family):
    batch, model = tiny_batch(), build(family)
    student = view_batch(model, batch)
    loss = METHOD.loss(student, view_batch(build(family), batch), batch)
    found = torch.autograd.grad(loss, list(model.encoder.parameters()))
    assert abs(loss.item()) < 1e-6
    assert max(part.abs().max() for part in found) < 1e-5


def test_gradcheck():
    batch = tiny_batch()
    student = view_batch(build("lstm").double(), batch_of_doubles(batch))
    teacher = view_batch(build("conformer", seed=1).double(), batch_of_doubles(batch))

    def loss(encoded):
        view = View(student.model, batch, encoded, student.logit_lengths)
        return METHOD.loss(view, teacher, batch)

    assert torch.autograd.gradcheck(loss, student.encoded.detach().requires_grad_())


def batch_of_doubles(batch):
    copy = only(batch, [0, 1, 2])
    copy.features = copy.features.double()
    return copy


def test_padding_and_batch_order_change_nothing():
    batch = tiny_batch()
    student, teacher = build("lstm", seed=1), build("conformer", joint_width=16)

    def loss(rows):
        part = only(batch, rows)
        view = view_batch(student, part)
        return METHOD.loss(view, store(teacher, part, KINDS, view.encoded.shape[1]), part).item()

    together = loss([0, 1, 2])
    assert together == pytest.approx(loss([2, 0, 1]), rel=1e-4)
    assert together == pytest.approx(sum(loss([row]) for row in range(3)) / 3, rel=1e-4)


def test_chunks_of_other_lengths_pad_alike():
    """The two encoders pad to whole chunks of their own, 10 and 16 frames here."""
    batch = tiny_batch()
    student = view_batch(build("lstm", seed=1), batch)
    chunky = view_batch(build("lstm", seed=2, chunk_frames=64), batch)
    assert student.encoded.shape[1] == 10 and chunky.encoded.shape[1] == 16
    same = view_batch(build("lstm", seed=2), batch)
    loss = METHOD.loss(student, same, batch)
    torch.testing.assert_close(METHOD.loss(student, chunky, batch), loss)


def test_gradient_reaches_the_students_encoder_and_its_logits():
    student, teacher, batch = pair()
    loss = METHOD.loss(student, teacher, batch)
    assert gradients(loss, student.model) == {"encoder": True, "predictor": False, "joiner": True}
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(loss, list(teacher.model.parameters()))


def test_runs_in_float32_under_autocast():
    batch = tiny_batch()
    with torch.autocast("cpu", torch.bfloat16):
        student = view_batch(build("lstm", seed=1), batch)
        loss = METHOD.loss(student, view_batch(build("conformer"), batch), batch)
    assert loss.dtype == torch.float32
    exact, teacher = (view_batch(build(*of), batch) for of in (("lstm", 12, 1), ("conformer",)))
    assert loss.item() == pytest.approx(METHOD.loss(exact, teacher, batch).item(), rel=0.05)


@pytest.mark.parametrize("families", [("lstm", "conformer"), ("conformer", "lstm")])
def test_one_family_learns_from_the_other(families):
    batch = tiny_batch()
    student = build(families[0], seed=1)
    teacher = store(build(families[1], joint_width=16), batch, KINDS, 10)
    losses = train(student, lambda: METHOD.loss(view_batch(student, batch), teacher, batch))
    assert losses[-1] < 0.8 * losses[0]


def test_teacher_of_twice_the_rate():
    """Both of a teacher's frames teach the student's: as much as their mean does, by hand."""
    batch = only(tiny_batch(), [0])
    student = view_batch(build("lstm", seed=1), batch)
    teacher = store(build_fast(), batch, KINDS, 20)
    theirs = encoder_logits(teacher.joiner, teacher.encoded).softmax(-1)
    mean = (theirs[:, ::2] + theirs[:, 1::2]) / 2
    ours = encoder_logits(student.joiner, student.encoded).log_softmax(-1)
    wanted = F.kl_div(ours, mean, reduction="sum") / 3
    torch.testing.assert_close(METHOD.loss(student, teacher, batch), wanted)


def test_entropy_by_hand():
    """Four equal pieces: ln 4. Probabilities 1/2, 1/4, 1/4: 1.5 ln 2."""
    found = entropy(torch.tensor([[7.0, 7.0, 7.0, 7.0], [math.log(2), 0, 0, -1e9]]))
    assert found.tolist() == pytest.approx([math.log(4), 1.5 * math.log(2)])


def test_entropies_of_a_batch():
    """Every softmax written out; a node counts by the share of all paths that visit it."""
    student, _, batch = pair()
    hidden = student.encoded.unsqueeze(2) + student.predicted.unsqueeze(1)
    joint = torch.distributions.Categorical(logits=student.joiner.output(torch.tanh(hidden)))
    alone = torch.distributions.Categorical(logits=encoder_logits(student.joiner, student.encoded))
    nodes, steps, frames = 0.0, 0, []
    for row, labels in enumerate(batch.target_lengths.tolist()):
        length = int(student.logit_lengths[row])
        moves = student.log_blank[row, :length, : labels + 1], student.log_emit[row, :length]
        visits = node_posteriors(moves[0].double(), moves[1][:, :labels].double())
        nodes += (visits * joint.entropy()[row, :length, : labels + 1]).sum().item()
        steps += length + labels
        frames += alone.entropy()[row, :length].tolist()
    assert encoder_entropy(student) == pytest.approx(sum(frames) / len(frames), rel=1e-5)
    assert joint_entropy(student, batch) == pytest.approx(nodes / steps, rel=1e-5)


def test_temperature():
    """Flatter targets, the scale of their gradient kept; at 1 the paper's loss."""
    student, teacher, batch = pair()
    ours = encoder_logits(student.joiner, student.encoded) / 2
    theirs = encoder_logits(teacher.joiner, teacher.encoded) / 2
    each = 4 * F.kl_div(
        ours.log_softmax(-1), theirs.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    wanted = each[0, :10].sum() / 3 + each[1, :7].sum() / 2 + each[2, :2].sum()
    found = Encoder(temperature=2.0).loss(student, teacher, batch)
    torch.testing.assert_close(found, wanted / 3)


@pytest.mark.parametrize("temperature", [0, -1, float("inf"), float("nan")])
def test_temperature_names_the_fix(temperature):
    with pytest.raises(InputError, match="positive number"):
        Encoder(temperature=temperature)


def test_figures_and_their_premise():
    """A teacher whose predictor knows the next piece: its encoder hesitates more than its joint."""
    student, teacher, batch = pair()
    with torch.no_grad():
        teacher.model.predictor.project.bias[0] = 30.0
        teacher.model.joiner.output.weight[BLANK, 0] = 9.0
    with torch.no_grad():
        found = METHOD.figures(student, teacher, batch)
    assert list(found) == [
        "encoder_entropy",
        "joint_entropy",
        "teacher_encoder_entropy",
        "teacher_joint_entropy",
    ]
    assert found["teacher_encoder_entropy"] > found["teacher_joint_entropy"]
    assert student.predicted.requires_grad
