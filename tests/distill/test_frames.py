"""Frames of other rates by hand and by their properties; how likely a teacher emits, by paths."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.distill.frames import (
    EmittingTargets,
    at_student_rate,
    emission_probability,
    frame_ratio,
    match_frames,
    sum_per_label,
)
from compress.distill.view import view_batch
from streaming.errors import InputError
from tests.distill.tiny_views import build, build_fast, store, tiny_batch
from tests.reference.paths import enumerate_paths, path_score


def matched(values, length, num_frames, ratio):
    found = match_frames(
        torch.tensor([values]), torch.tensor([length]), num_frames, Fraction(ratio)
    )
    return found[0].tolist()


@pytest.mark.parametrize(
    ("values", "length", "num_frames", "ratio", "wanted"),
    [
        ([1.0, 3.0, 5.0, 9.0], 4, 2, "2", [2.0, 7.0]),
        ([1.0, 3.0, 5.0, 9.0], 3, 2, "2", [2.0, 5.0]),  # the last frame is alone in its pair
        ([1.0, 3.0, 5.0, 9.0], 2, 3, "2", [2.0, 0.0, 0.0]),
        ([1.0, 2.0, 6.0], 3, 1, "3", [3.0]),
        ([1.0, 3.0], 2, 4, "1/2", [1.0, 1.0, 3.0, 3.0]),
        ([1.0, 3.0], 2, 3, "1/2", [1.0, 1.0, 3.0]),
        ([1.0, 3.0], 1, 5, "1/2", [1.0, 1.0, 0.0, 0.0, 0.0]),
        ([1.0, 3.0], 2, 3, "1", [1.0, 3.0, 0.0]),
        ([1.0, 3.0, 9.0], 2, 2, "1", [1.0, 3.0]),
    ],
)
def test_by_hand(values, length, num_frames, ratio, wanted):
    assert matched(values, length, num_frames, ratio) == wanted


lengths = st.integers(1, 9)
rates = st.integers(1, 4)


@given(length=lengths, rate=rates, spare=st.integers(0, 3), seed=st.integers(0, 99))
def test_repeated_then_pooled_is_what_it_was(length, rate, spare, seed):
    values = torch.randn(1, length, 2, generator=torch.Generator().manual_seed(seed))
    fast = (length + spare) * rate
    repeated = match_frames(values, torch.tensor([length]), fast, Fraction(1, rate))
    back = match_frames(repeated, torch.tensor([length * rate]), length, Fraction(rate))
    torch.testing.assert_close(back, values)


@given(length=lengths, rate=rates, spare=st.integers(0, 5), seed=st.integers(0, 99))
def test_padding_never_counts(length, rate, spare, seed):
    values = torch.randn(1, length, 2, generator=torch.Generator().manual_seed(seed))
    padded = torch.cat([values, torch.full((1, spare, 2), float("nan"))], 1)
    num_frames = -(-length // rate)
    alone = match_frames(values, torch.tensor([length]), num_frames, Fraction(rate))
    together = match_frames(padded, torch.tensor([length]), num_frames + spare, Fraction(rate))
    torch.testing.assert_close(together[:, :num_frames], alone)
    assert not together[:, num_frames:].any()


@given(length=lengths, rate=rates, seed=st.integers(0, 99))
def test_pooling_keeps_distributions(length, rate, seed):
    values = torch.randn(1, length, 3, generator=torch.Generator().manual_seed(seed)).softmax(-1)
    found = match_frames(values, torch.tensor([length]), -(-length // rate), Fraction(rate))
    torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:2]))


def test_pooling_has_the_gradient_of_all_frames():
    """sum_i KL(p_i || q) and r KL(mean p || q) differ by a constant: their gradients are equal."""
    torch.manual_seed(0)
    teacher = torch.randn(1, 6, 5).softmax(-1)
    logits = torch.randn(1, 2, 5, requires_grad=True)
    ours = logits.log_softmax(-1)
    pooled = match_frames(teacher, torch.tensor([6]), 2, Fraction(3))
    each = (teacher * -ours.repeat_interleave(3, 1)).sum()
    (wanted,) = torch.autograd.grad(each, logits, retain_graph=True)
    (found,) = torch.autograd.grad(3 * (pooled * -ours).sum(), logits)
    torch.testing.assert_close(found, wanted)


def test_ratio_of_two_encoders():
    batch = tiny_batch()
    slow, fast = view_batch(build("lstm"), batch), view_batch(build_fast(), batch)
    assert frame_ratio(slow, fast) == 2
    assert frame_ratio(fast, slow) == Fraction(1, 2)
    assert at_student_rate(fast.encoded, slow, fast).shape == slow.encoded.shape
    assert at_student_rate(slow.encoded, fast, slow).shape == fast.encoded.shape


def test_ratio_that_is_not_whole_is_named():
    batch = tiny_batch()
    teacher = view_batch(build_fast(), batch)
    teacher.model.encoder.subsampling = 3
    with pytest.raises(InputError, match=r"30 ms .* 40 ms"):
        frame_ratio(view_batch(build("lstm"), batch), teacher)


def test_sum_per_label_by_hand():
    """(1 + 2) / 3 labels, 4 / 1 for no labels at all: mean 2.5."""
    values = torch.tensor([[1.0, 2.0, float("nan")], [4.0, 9.0, 9.0]])
    found = sum_per_label(values, torch.tensor([2, 1]), torch.tensor([3, 0]))
    assert found.item() == 2.5


def random_lattice(num_frames, num_labels, seed=0):
    torch.manual_seed(seed)
    log_probs = torch.randn(num_frames, num_labels + 1, 4, dtype=torch.float64).log_softmax(-1)
    return log_probs[..., 0], log_probs[:, :num_labels, 1]


@pytest.mark.parametrize(("num_frames", "num_labels"), [(1, 0), (4, 0), (1, 3), (5, 3), (4, 4)])
def test_emission_equals_the_mean_over_all_paths(num_frames, num_labels):
    log_blank, log_emit = random_lattice(num_frames, num_labels)
    paths = list(enumerate_paths(num_frames, num_labels))
    posterior = torch.stack([path_score(path, log_blank, log_emit) for path in paths]).softmax(0)
    wanted = torch.zeros(num_frames, dtype=torch.float64)
    for path, share in zip(paths, posterior, strict=True):
        for t in range(num_frames):
            row = min(u for frame, u, _ in path if frame == t)
            wanted[t] += share * (1 - log_blank[t, row].exp())
    lengths = torch.tensor([num_frames]), torch.tensor([num_labels])
    found = emission_probability(log_blank[None], log_emit[None], *lengths)
    torch.testing.assert_close(found[0], wanted)


def test_emission_is_high_where_the_only_path_emits():
    """One label, said in frame 1 of 3: blank 0.9 before and after, 0.2 there."""
    blank = torch.tensor([[0.9, 0.1], [0.2, 0.1], [0.9, 0.9]])
    emit = torch.tensor([[1e-9], [0.8], [1e-9]])
    lengths = torch.tensor([3]), torch.tensor([1])
    found = emission_probability(blank.log()[None], emit.log()[None], *lengths)
    assert found[0].tolist() == pytest.approx([0.1, 0.8, 0.1], abs=1e-6)


def test_emitting_targets_do_not_depend_on_the_batch():
    teacher, batch = build("conformer"), tiny_batch()
    stored = store(teacher, batch, [EmittingTargets()], 12).stored["emitting"]
    with torch.no_grad():
        view = view_batch(teacher, batch)
    lengths = view.logit_lengths, batch.target_lengths
    together = emission_probability(view.log_blank, view.log_emit, *lengths)
    torch.testing.assert_close(stored[:, :10], together, atol=1e-3, rtol=0)
    for row, (length, labels) in enumerate(zip(*(part.tolist() for part in lengths), strict=True)):
        alone = emission_probability(
            view.log_blank[row : row + 1, :length, : labels + 1],
            view.log_emit[row : row + 1, :length, :labels],
            *(part[row : row + 1] for part in lengths),
        )
        torch.testing.assert_close(together[row, :length], alone[0])
        assert not together[row, length:].any()
