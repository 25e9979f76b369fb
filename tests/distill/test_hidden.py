"""TutorNet's first stage: hidden frames, their weights, and an adapter that vanishes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.distill.frames import EmittingTargets
from compress.distill.hidden import Hidden, frame_weights
from compress.distill.targets.encoded import EncodedTargets
from compress.distill.teaching import narrow_adapter
from compress.distill.view import TeacherView, View, view_batch
from compress.models.transducer import Transducer
from compress.shrink.channel import ChannelPruner, carry_optimizer_state
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

KINDS = [EncodedTargets(), EmittingTargets()]
METHOD = Hidden()
EVEN = Hidden(epsilon=1.0)


def adapters_of(student, teacher, seed=0):
    torch.manual_seed(seed)
    return nn.ModuleDict({"hidden": METHOD.adapter(student.config, teacher.config)})


def pair(student_family="lstm", teacher_family="conformer"):
    """A student's view, its frozen teacher's, of another width, and the batch."""
    batch, student = tiny_batch(), build(student_family, seed=1)
    teacher = build(teacher_family, joint_width=16)
    view = view_batch(student, batch, adapters_of(student, teacher))
    return view, store(teacher, batch, KINDS, 10), batch


def test_by_hand():
    """g = 1, h^S = [0, 0], h^T = [1, 3] and then [2, 0]: (10 + 4) / 2 units, over 2 labels."""
    batch = only(tiny_batch(), [1])
    lengths = torch.tensor([2])
    stored = {"encoded": torch.tensor([[[1.0, 3.0], [2.0, 0.0]]])}
    model = build("lstm", joint_width=2)
    student = View(model, batch, torch.zeros(1, 2, 2), lengths, adapters_of(model, model))
    teacher = TeacherView(model, batch, lengths, stored)
    assert EVEN.loss(student, teacher, batch).item() == pytest.approx(3.5)
    # The label is said in the first frame: weights 1 and 0.1, scaled to 20/11 and 2/11.
    stored["emitting"] = torch.tensor([[1.0, 0.0]])
    wanted = (20 / 11 * 10 + 2 / 11 * 4) / 2 / 2
    assert METHOD.loss(student, teacher, batch).item() == pytest.approx(wanted)


def test_weights_by_hand():
    emits = torch.tensor([[1.0, 0.0, 9.0], [0.5, 0.5, 0.5]])
    found = frame_weights(emits, torch.tensor([2, 3]), 0.5)
    torch.testing.assert_close(found, torch.tensor([[4 / 3, 2 / 3, 0.0], [1.0, 1.0, 1.0]]))


def test_weights_have_mean_one_over_the_frames_of_an_utterance():
    student, teacher, _ = pair()
    for epsilon in (0.01, 0.1, 0.9):
        weights = Hidden(epsilon=epsilon).weights(student, teacher)
        torch.testing.assert_close(weights.sum(1), student.logit_lengths.float())


def test_equals_the_sum_over_frames_and_units():
    student, teacher, batch = pair()
    ours = student.adapters["hidden"](student.encoded)
    weights = METHOD.weights(student, teacher)
    total = 0.0
    for row, labels in enumerate(batch.target_lengths.tolist()):
        frames = 0.0
        for t in range(int(student.logit_lengths[row])):
            units = zip(teacher.encoded[row, t].tolist(), ours[row, t].tolist(), strict=True)
            frames += weights[row, t].item() * sum((a - b) ** 2 for a, b in units) / 16
        total += frames / max(1, labels)
    assert METHOD.loss(student, teacher, batch).item() == pytest.approx(total / 3, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [METHOD, EVEN])
def test_equal_models_begin_at_zero(family, method):
    """Where a student starts as its teacher the adapter is the identity; float16 is stored."""
    batch, model = tiny_batch(), build(family)
    student = view_batch(model, batch, adapters_of(model, model))
    assert method.loss(student, store(build(family), batch, KINDS, 10), batch).item() < 1e-5
    live = TeacherView(model, batch, student.logit_lengths, {"encoded": student.encoded.detach()})
    live.stored["emitting"] = torch.full((3, 10), 0.3)
    loss = method.loss(student, live, batch)
    found = torch.autograd.grad(loss, list(model.encoder.parameters()))
    assert loss.item() == 0.0
    assert not any(part.any() for part in found)


def test_gradcheck():
    """With respect to the student's frames and to the adapter."""
    student, teacher, batch = pair()
    adapter = student.adapters.double()["hidden"]

    def loss(encoded, weight):
        projected = encoded @ weight.T + adapter.bias.detach()
        same = nn.ModuleDict({"hidden": nn.Identity()})
        view = View(student.model, batch, projected, student.logit_lengths, same)
        return METHOD.loss(view, teacher, batch)

    encoded = student.encoded.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(loss, (encoded, adapter.weight))


def test_padding_and_batch_order_change_nothing():
    batch = tiny_batch()
    student, teacher = build("lstm", seed=1), build("conformer", joint_width=16)
    adapters = adapters_of(student, teacher)

    def loss(rows):
        part = only(batch, rows)
        view = view_batch(student, part, adapters)
        return METHOD.loss(view, store(teacher, part, KINDS, view.encoded.shape[1]), part).item()

    together = loss([0, 1, 2])
    assert together == pytest.approx(loss([2, 1, 0]), rel=1e-3)
    assert together == pytest.approx(sum(loss([row]) for row in range(3)) / 3, rel=1e-3)


def test_gradient_reaches_the_students_encoder_and_the_adapter():
    student, teacher, batch = pair()
    loss = METHOD.loss(student, teacher, batch)
    assert gradients(loss, student.model) == {"encoder": True, "predictor": False, "joiner": False}
    assert gradients(loss, student.adapters) == {"hidden": True}


@pytest.mark.parametrize("families", [("lstm", "conformer"), ("conformer", "lstm")])
def test_one_family_learns_from_the_other(families):
    student, teacher, batch = pair(*families)
    model, adapters = student.model, student.adapters
    learner = nn.ModuleList([model, adapters])
    names = list(model.state_dict())
    losses = train(learner, lambda: METHOD.loss(view_batch(model, batch, adapters), teacher, batch))
    assert losses[-1] < 0.8 * losses[0]
    assert list(model.state_dict()) == names == list(Transducer(model.config).state_dict())


def test_teacher_of_twice_the_rate():
    batch, model = only(tiny_batch(), [0]), build("lstm", seed=1)
    teacher = store(build_fast(), batch, KINDS, 20)
    student = view_batch(model, batch, adapters_of(model, teacher.model))
    pooled = teacher.encoded.unflatten(1, (10, 2)).mean(2)
    emits = teacher.stored["emitting"].unflatten(1, (10, 2)).mean(2)
    weights = frame_weights(emits, student.logit_lengths, 0.1)
    wanted = (weights * (student.encoded - pooled).square().mean(2)).sum() / 3
    torch.testing.assert_close(METHOD.loss(student, teacher, batch), wanted)


def test_even_weights_need_neither_labels_nor_their_vocabulary():
    student, _, batch = pair()
    teacher = store(build("conformer", joint_width=16), batch, EVEN.needs(), 10)
    assert list(teacher.stored) == ["encoded"]
    assert EVEN.loss(student, teacher, batch) > 0
    assert (EVEN.same_vocabulary, METHOD.same_vocabulary) == (False, True)
    assert [kind.name for kind in METHOD.needs()] == ["encoded", "emitting"]


@pytest.mark.parametrize("epsilon", [0, -0.1, 1.1, float("nan")])
def test_epsilon_names_the_fix(epsilon):
    with pytest.raises(InputError, match="above 0 and at most 1"):
        Hidden(epsilon=epsilon)


def test_narrowed_by_hand():
    """Units 0 and 2 of three stay: so do their columns, and the moments of these."""
    adapter = nn.Linear(3, 2)
    with torch.no_grad():
        adapter.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.0)
    (adapter.weight * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    optimizer.step()
    weight = adapter.weight
    narrow_adapter(optimizer, adapter, torch.tensor([0, 2]))
    assert adapter.weight is weight and weight.grad is None and adapter.in_features == 2
    assert weight.tolist() == [[1.0, 3.0], [4.0, 6.0]]
    moment = optimizer.state[weight]["exp_avg"]
    torch.testing.assert_close(moment, torch.tensor([[0.1, 0.3], [0.1, 0.3]]))


def test_follows_while_the_student_is_pruned():
    """The shrunk joint layer and the shrunk adapter still fit, and training goes on."""
    batch, teacher = tiny_batch(), build("lstm", joint_width=48)
    student = build("lstm", joint_width=48)
    adapters = adapters_of(student, teacher)
    view = store(teacher, batch, KINDS, 10)
    learner = nn.ModuleList([student, adapters])
    optimizer = torch.optim.AdamW(learner.parameters(), lr=0.01)
    pruner = ChannelPruner(student, min_width=4)

    def step():
        loss = METHOD.loss(view_batch(student, batch, adapters), view, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    step()
    before = adapters["hidden"].weight.detach().clone()
    kept = pruner.prune_to(0.5)
    carry_optimizer_state(optimizer, student, kept)
    units = kept["encoder.project.bias"]
    assert len(units) < 48
    narrow_adapter(optimizer, adapters["hidden"], units)
    assert torch.equal(adapters["hidden"].weight, before[:, units])
    losses = [step() for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
