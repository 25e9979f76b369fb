"""Co-learning: who gets which gradient, what is trained, and what is saved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.distill.encoder import Encoder
from compress.distill.hidden import Hidden
from compress.distill.lattice import Lattice
from compress.distill.lessons import Lesson
from compress.distill.tandem import CoLearning, Tandem
from compress.distill.targets.encoded import EncodedTargets
from compress.distill.view import view_batch
from compress.losses.rnnt import transducer_loss
from streaming.errors import InputError
from tests.distill.tiny_views import (
    FAMILIES,
    build,
    build_fast,
    gradients,
    store,
    tiny_batch,
    train,
)

FOREVER = float("inf")
MODES = ["colearn", "shared"]


def lesson(weight=0.5, first=0, end=FOREVER):
    return Lesson("encoder", weight, first, end, Encoder())


def couple(mode, family="lstm", lessons=None):
    """A student, and its teaching by a Conformer that learns too."""
    student = build(family, seed=1)
    tandem = Tandem(build("conformer", seed=2), student, mode)
    return student, CoLearning([lesson()] if lessons is None else lessons, tandem)


def own_loss(student, batch):
    view = view_batch(student, batch)
    lengths = view.logit_lengths, batch.target_lengths
    losses = transducer_loss(view.log_blank, view.log_emit, *lengths)
    return view, (losses / batch.target_lengths.clamp(min=1)).mean()


def total_loss(student, teaching, batch, step=0):
    view, own = own_loss(student, batch)
    return own + teaching.loss(view, batch, step)[0]


@pytest.mark.parametrize("mode", MODES)
def test_distillation_gives_the_teacher_no_gradient(mode):
    student, teaching = couple(mode)
    batch = tiny_batch()
    view = view_batch(student, batch)
    loss = Encoder().loss(view, teaching.tandem.view(view, batch), batch)
    own_joiner = mode == "colearn"
    reached = {"encoder": True, "predictor": False, "joiner": own_joiner}
    assert gradients(loss, student) == reached
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(loss, list(teaching.parameters()))


@pytest.mark.parametrize("mode", MODES)
def test_the_teachers_gradient_is_that_of_its_own_loss(mode):
    """With the lesson and without it the teacher's encoder gets the same."""
    batch = tiny_batch()
    found = []
    for lessons in ([lesson(weight=5.0)], [lesson(first=1)]):
        student, teaching = couple(mode, lessons=lessons)
        total_loss(student, teaching, batch).backward()
        found.append([parameter.grad for parameter in teaching.parameters()])
    for taught, alone in zip(*found, strict=True):
        torch.testing.assert_close(taught, alone)


def test_shared_modules_get_the_gradients_of_both_transducer_losses():
    batch = tiny_batch()
    student, teaching = couple("shared", lessons=[])
    view, own = own_loss(student, batch)
    shared = [*student.predictor.parameters(), *student.joiner.parameters()]
    both, _ = teaching.loss(view, batch, 0)
    alone = torch.autograd.grad(own, shared, retain_graph=True)
    teachers = torch.autograd.grad(both, shared, retain_graph=True)
    assert all(part.any() for part in teachers)
    together = torch.autograd.grad(own + both, shared)
    for total, *parts in zip(together, alone, teachers, strict=True):
        torch.testing.assert_close(total, sum(parts))


@pytest.mark.parametrize("mode", MODES)
def test_each_parameter_is_registered_once(mode):
    student, teaching = couple(mode)
    ours = {id(parameter) for parameter in student.parameters()}
    theirs = {id(parameter) for parameter in teaching.parameters()}
    assert not ours & theirs
    both = nn.ModuleDict({"transducer": student, "teaching": teaching})
    assert len(list(both.parameters())) == len(both.state_dict()) - num_buffers(both)
    children = {name.split(".")[1] for name in teaching.state_dict()}
    assert children == ({"encoder"} if mode == "shared" else {"transducer"})


def num_buffers(module):
    return len(list(module.buffers()))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_both_learn(mode, family):
    student, teaching = couple(mode, family)
    batch = tiny_batch()
    kept = []

    def loss():
        view, own = own_loss(student, batch)
        taught, parts = teaching.loss(view, batch, len(kept))
        kept.append({"transducer": own.item(), **parts})
        return own + taught

    train(nn.ModuleList([student, teaching]), loss, steps=15)
    assert kept[-1]["transducer"] < 0.7 * kept[0]["transducer"]
    assert kept[-1]["teacher_transducer"] < 0.7 * kept[0]["teacher_transducer"]


def test_the_sum_is_written_out():
    batch = tiny_batch()
    student, teaching = couple("colearn", lessons=[lesson(weight=0.25, first=3)])
    view = view_batch(student, batch)
    _, own = own_loss(teaching.tandem.transducer, batch)
    taught = Encoder().loss(view, view_batch(teaching.tandem.transducer, batch), batch)
    early, parts = teaching.loss(view, batch, 2)
    torch.testing.assert_close(early, own)
    assert list(parts) == ["teacher_transducer"]
    late, parts = teaching.loss(view, batch, 3)
    torch.testing.assert_close(late, own + 0.25 * taught)
    assert parts["encoder"] == pytest.approx(taught.item(), rel=1e-5)


def test_the_teachers_encoder_runs_once_a_step():
    student, teaching = couple("shared")
    calls = []
    teaching.tandem.encoder.register_forward_hook(lambda *_: calls.append(1))
    view = view_batch(student, tiny_batch())
    for step in range(3):
        teaching.loss(view, tiny_batch(), step)
    assert len(calls) == 3
    assert teaching.seen is None  # nothing keeps the graph alive between steps


@pytest.mark.parametrize(("mine", "theirs"), [(8, 64), (64, 8)])
def test_chunks_of_other_lengths_meet_in_one_lattice(mine, theirs):
    """40 frames are 10 encoder frames in chunks of 2, and 16 in chunks of 16."""
    batch, student = tiny_batch(), build("lstm", seed=1, chunk_frames=mine)
    found = []
    for chunk_frames in (mine, theirs):
        teacher = build("lstm", seed=2, chunk_frames=chunk_frames)
        lattice = Lesson("lattice", 1.0, 0, FOREVER, Lattice())
        teaching = CoLearning([lattice], Tandem(teacher, student))
        found.append(teaching.loss(view_batch(student, batch), batch, 0)[0].item())
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_warm_start_copies_the_checkpoint_and_leaves_it_alone():
    batch = tiny_batch()
    checkpoint = build("conformer", seed=2).eval().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in checkpoint.state_dict().items()}
    student = build("lstm", seed=1)
    teaching = CoLearning([lesson()], Tandem(checkpoint, student))
    view, _ = own_loss(student, batch)
    live = Encoder().loss(view, teaching.tandem.view(view, batch), batch)
    static = Encoder().loss(view, store(checkpoint, batch, [EncodedTargets()], 10), batch)
    torch.testing.assert_close(live, static, atol=1e-3, rtol=1e-3)
    train(
        nn.ModuleList([student, teaching]),
        lambda: total_loss(student, teaching, batch),
        steps=2,
    )
    learned = teaching.tandem.transducer.state_dict()
    for name, tensor in checkpoint.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not torch.equal(learned["joiner.output.weight"], before["joiner.output.weight"])


@pytest.mark.parametrize("mode", MODES)
def test_a_saved_student_is_only_the_student(mode):
    student, teaching = couple(mode)
    names = list(build("lstm").state_dict())
    batch = tiny_batch()
    train(
        nn.ModuleList([student, teaching]),
        lambda: total_loss(student, teaching, batch),
        steps=1,
    )
    assert list(student.state_dict()) == names


@pytest.mark.parametrize("mode", MODES)
def test_resumed_from_its_state_it_says_the_same(mode):
    batch = tiny_batch()
    student, teaching = couple(mode)
    train(nn.ModuleList([student, teaching]), lambda: total_loss(student, teaching, batch), 2)
    again, fresh = couple(mode)
    again.load_state_dict(student.state_dict())
    fresh.load_state_dict(teaching.state_dict())
    one, other = total_loss(student, teaching, batch), total_loss(again, fresh, batch)
    assert one.item() == other.item()


def test_shared_joiner_names_both_widths():
    with pytest.raises(InputError, match=r"teacher's is 16 .* student's 12"):
        Tandem(build("conformer", joint_width=16), build("lstm"), "shared")


def test_shared_joiner_names_both_frames():
    with pytest.raises(InputError, match=r"20 ms .* 40 ms"):
        Tandem(build_fast(), build("lstm"), "shared")


def test_unknown_mode_names_the_known():
    with pytest.raises(InputError, match="colearn or shared"):
        Tandem(build("conformer"), build("lstm"), "share")


def test_lessons_of_stored_targets_are_refused():
    tandem = Tandem(build("conformer"), build("lstm"))
    with pytest.raises(InputError, match=r"hidden learns from stored .* lattice, .*encoder"):
        CoLearning([Lesson("hidden", 1.0, 0, FOREVER, Hidden())], tandem)


def test_two_whole_models_need_a_lesson():
    with pytest.raises(InputError, match="teaches nothing without a lesson"):
        couple("colearn", lessons=[])
