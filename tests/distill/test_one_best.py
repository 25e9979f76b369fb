"""One-best-path distillation against plain loops, and what shift, window and temperature mean."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from compress.data.batches import Batch
from compress.distill import DISTILLERS
from compress.distill.one_best import OneBest
from compress.distill.targets.path import PathTarget, PathTargets, merge_rest, path_log_probs
from compress.distill.view import TeacherView, View
from compress.losses.best_path import Path, best_path
from compress.models.config import StatelessPredictorConfig
from compress.models.joiner import Joiner
from compress.models.predictors import StatelessPredictor
from streaming.errors import InputError

V, J = 9, 5
TARGETS = torch.tensor([[3, 5, 2], [4, 0, 0]])
TARGET_LENGTHS = torch.tensor([3, 1])
LOGIT_LENGTHS = torch.tensor([6, 4])


class Decoder(nn.Module):
    """What a view needs of a model: predictor and joiner."""

    def __init__(self, dtype):
        super().__init__()
        config = StatelessPredictorConfig(width=4, joint_width=J)
        self.predictor = StatelessPredictor(V, config).to(dtype)
        self.joiner = Joiner(J, V).to(dtype)


def batch_of(rows=(0, 1)):
    lengths = TARGET_LENGTHS[list(rows)]
    return Batch(None, None, TARGETS[list(rows), : lengths.max()], lengths, None, [])


def view_of(seed, dtype=torch.float32, rows=(0, 1)):
    """A random model's view; the frames behind an utterance's end hold random numbers too."""
    torch.manual_seed(seed)
    model = Decoder(dtype)
    encoded = 2 * torch.randn(2, 6, J, dtype=dtype)
    lengths = LOGIT_LENGTHS[list(rows)]
    encoded = encoded[list(rows), : lengths.max()].clone().requires_grad_()
    return View(model, batch_of(rows), encoded, lengths)


def target_of(view, top_k=V):
    """The view's own path, without the rounding of stored targets."""
    lengths = view.logit_lengths, view.batch.target_lengths
    path = best_path(view.log_blank, view.log_emit, *lengths)
    return PathTarget(path, *merge_rest(path_log_probs(view, path).detach(), top_k))


def teacher_of(target):
    return TeacherView(None, None, None, {"path": target})


def loss_of(student, target, **settings):
    return OneBest(**settings).loss(student, teacher_of(target), student.batch)


def log_softmaxes(view, temperature=1.0):
    """(B, T, U+1, V) of the whole lattice."""
    logits = view.joiner(view.encoded.unsqueeze(2), view.predicted.unsqueeze(1))
    return (logits / temperature).log_softmax(-1)


def slow_loss(student, teacher, shifts=(0,), temperature=1.0):
    """The equation in loops over utterances, nodes and tokens; all tokens told apart."""
    path = target_of(teacher).path
    theirs, ours = (log_softmaxes(view, temperature).tolist() for view in (teacher, student))
    total = 0.0
    for b, length in enumerate(path.lengths.tolist()):
        for i in range(length):
            t, u = int(path.frames[b, i]), int(path.rows[b, i])
            if t + max(shifts) >= int(student.logit_lengths[b]):
                continue
            total += (
                temperature**2
                * min(
                    sum(
                        math.exp(q) * (q - p)
                        for q, p in zip(theirs[b][t][u], ours[b][t + shift][u], strict=True)
                    )
                    for shift in shifts
                )
                / int(student.batch.target_lengths[b])
            )
    return total / len(path.lengths)


def test_registered():
    assert DISTILLERS["one_best"] is OneBest


def test_by_hand():
    """One node, blank .75 against .5 of two tokens: .75 ln 1.5 + .25 ln .5."""
    path = Path(*torch.zeros(2, 1, 1, dtype=torch.int64), torch.tensor([1]))
    log_probs = torch.tensor([[[0.75, 0.25, 0.0]]]).clamp(min=1e-30).log()
    target = PathTarget(path, torch.tensor([[[0, 1]]]), log_probs)
    batch = Batch(None, None, torch.zeros(1, 0, dtype=torch.int64), torch.tensor([0]), None, [])
    model = Decoder(torch.float32)
    nn.init.zeros_(model.joiner.output.weight)
    with torch.no_grad():
        model.joiner.output.bias.copy_(torch.tensor([0.0, 0.0] + [-1e4] * (V - 2)))
    student = View(model, batch, torch.zeros(1, 1, J), torch.tensor([1]))
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert loss_of(student, target).item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_equals_loops(temperature):
    student, teacher = view_of(0), view_of(1)
    found = loss_of(student, target_of(teacher), temperature=temperature)
    wanted = slow_loss(student, teacher, temperature=temperature)
    assert found.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    "shift, window, shifts",
    [(1, False, [1]), (3, False, [3]), (0, True, [0]), (1, True, [0, 1]), (4, True, [2, 3, 4])],
)
def test_shift_and_window_equal_loops(shift, window, shifts):
    assert OneBest(shift=shift, window=window).shifts == shifts
    student, teacher = view_of(2), view_of(3)
    found = loss_of(student, target_of(teacher), shift=shift, window=window)
    assert found.item() == pytest.approx(slow_loss(student, teacher, shifts), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("top_k", [2, 4, V])
def test_equal_models_give_zero_and_no_gradient(top_k, temperature):
    student = view_of(4)
    loss = loss_of(student, target_of(view_of(4), top_k), temperature=temperature)
    (gradient,) = torch.autograd.grad(loss, student.encoded)
    assert abs(loss.item()) < 1e-5
    assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize("top_k", [2, 8])
def test_equal_models_after_storing(top_k):
    """float16 log probabilities: the loss is good to 1e-6, the gradient to three digits."""
    student, teacher = view_of(5), view_of(5)
    kind = PathTargets(top_k)
    with torch.no_grad():
        items = kind.label(teacher, teacher.batch)
    loss = loss_of(student, kind.collate(items, batch_of(), 6), top_k=top_k)
    (gradient,) = torch.autograd.grad(loss, student.encoded)
    assert abs(loss.item()) < 1e-5
    assert gradient.abs().max() < 2e-3


def test_fewer_classes_never_cost_more():
    student, teacher = view_of(6), view_of(7)
    losses = [loss_of(student, target_of(teacher, k), top_k=k).item() for k in range(2, V + 1)]
    assert losses == sorted(losses)
    assert losses[0] > 0


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_shift_is_the_number_of_frames_that_the_student_is_late(shift):
    """A student that says all `shift` frames later agrees at this shift, and at no other."""
    teacher, student = view_of(8), view_of(8)
    student.encoded = teacher.encoded.detach().roll(shift, 1)
    target = target_of(teacher)
    losses = [loss_of(student, target, shift=other).item() for other in range(5)]
    assert abs(losses.pop(shift)) < 1e-6
    assert min(losses) > 0.02
    windowed = loss_of(student, target, shift=min(10, shift + 1), window=True)
    assert abs(windowed.item()) < 1e-6


def test_shift_moves_the_gradient():
    """Frames before the shift hear nothing, the first node's frame does; padding never."""
    student, teacher = view_of(9), view_of(10)
    (gradient,) = torch.autograd.grad(
        loss_of(student, target_of(teacher), shift=2), student.encoded
    )
    heard = gradient.abs().sum(-1) > 0
    assert heard.tolist() == [[False] * 2 + [True] * 4, [False] * 2 + [True] * 2 + [False] * 2]


def test_window_is_at_most_the_single_shift():
    student, teacher = view_of(11), view_of(12)
    for shift in range(6):
        single = loss_of(student, target_of(teacher), shift=shift).item()
        windowed = loss_of(student, target_of(teacher), shift=shift, window=True).item()
        if shift == 0:
            assert windowed == single
        else:
            assert windowed < single - 1e-3


def test_an_utterance_that_is_dropped_counts_zero():
    """Shift 4: the second utterance has four frames, none is left."""
    student, teacher = view_of(13), view_of(14)
    both = loss_of(student, target_of(teacher), shift=4)
    first = loss_of(view_of(13, rows=[0]), target_of(view_of(14, rows=[0])), shift=4)
    assert both.item() == pytest.approx(first.item() / 2, rel=1e-5)
    nothing = loss_of(student, target_of(teacher), shift=10)
    assert nothing.item() == 0
    nothing.backward()
    assert not student.encoded.grad.any()


@pytest.mark.parametrize("settings", [{}, {"shift": 2, "window": True}, {"temperature": 2.0}])
def test_padding_and_batch_order_change_nothing(settings):
    student, teacher = view_of(15), view_of(16)
    together = loss_of(student, target_of(teacher), **settings).item()
    swapped = [view_of(seed, rows=[1, 0]) for seed in (15, 16)]
    assert loss_of(swapped[0], target_of(swapped[1]), **settings).item() == pytest.approx(together)
    alone = [
        loss_of(view_of(15, rows=[row]), target_of(view_of(16, rows=[row])), **settings).item()
        for row in (0, 1)
    ]
    assert together == pytest.approx(sum(alone) / 2, rel=1e-5)


@pytest.mark.parametrize(
    "settings", [{"top_k": 3}, {"shift": 1, "window": True}, {"temperature": 2.0}]
)
def test_gradcheck(settings):
    student, teacher = view_of(17, torch.float64), view_of(18)
    target = target_of(teacher, settings.get("top_k", V))

    def loss(encoded):
        return loss_of(View(student.model, batch_of(), encoded, LOGIT_LENGTHS), target, **settings)

    assert torch.autograd.gradcheck(loss, student.encoded)


def test_the_gradient_reaches_all_of_the_student_and_nothing_of_the_teacher():
    student, teacher = view_of(19), view_of(20)
    kind = PathTargets()
    with torch.no_grad():
        items = kind.label(teacher, teacher.batch)
    view = TeacherView(
        teacher.model, batch_of(), None, {"path": kind.collate(items, batch_of(), 6)}
    )
    OneBest().loss(student, view, batch_of()).backward()
    for parameter in student.model.parameters():
        assert parameter.grad is not None and parameter.grad.any()
    assert student.encoded.grad.any()
    assert teacher.encoded.grad is None
    assert all(parameter.grad is None for parameter in teacher.model.parameters())


def test_bfloat16_autocast():
    student, target = view_of(21), target_of(view_of(22))
    wanted = loss_of(student, target).item()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_of(view_of(21), target)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"shift": 11},
        {"shift": -1},
        {"shift": 0.5},
        {"window": 3},
        {"top_k": 1},
        {"top_k": 2.5},
        {"lm_weight": -1},
        {"lm": "no/such/folder"},
    ],
)
def test_wrong_settings_are_named(settings):
    name = "no language model folder" if "lm" in settings else next(iter(settings))
    with pytest.raises(InputError, match=name):
        OneBest(**settings)
