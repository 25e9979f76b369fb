"""The transducer loss against enumeration, torchaudio and finite differences."""

from __future__ import annotations

import pytest
import torch
import torchaudio
from torch import nn

from compress.losses.joint import LOGITS_PER_SLICE, joint_log_probs
from compress.losses.lattice import NEVER, move_posteriors, node_posteriors, score_lattice
from compress.losses.rnnt import transducer_loss
from tests.reference import paths as all_paths


def random_moves(num_frames, num_labels, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, num_frames, num_labels + 1, 3)
    log_probs = torch.randn(shape, generator=generator, dtype=torch.float64).log_softmax(-1)
    return log_probs[..., 0], log_probs[:, :, :-1, 1]


@pytest.mark.parametrize("num_labels", [0, 1, 2, 4])
@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_equals_all_paths(num_frames, num_labels):
    log_blank, log_emit = random_moves(num_frames, num_labels)
    lengths = torch.tensor([num_frames]), torch.tensor([num_labels])
    loss = transducer_loss(log_blank, log_emit, *lengths)
    expected = -all_paths.log_likelihood(log_blank[0], log_emit[0])
    torch.testing.assert_close(loss[0], expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("num_labels", [0, 2, 4])
def test_occupation_equals_all_paths_and_sums_to_path_length(num_labels):
    log_blank, log_emit = random_moves(5, num_labels, seed=3)
    lengths = torch.tensor([5]), torch.tensor([num_labels])
    lattice = score_lattice(log_blank, log_emit, *lengths)
    moves = move_posteriors(lattice, log_blank, log_emit, *lengths)
    nodes = moves.blank.clone()
    nodes[:, :, :-1] += moves.emit
    torch.testing.assert_close(nodes[0], all_paths.node_posteriors(log_blank[0], log_emit[0]))
    torch.testing.assert_close(nodes, node_posteriors(lattice))
    assert abs(nodes.sum().item() - (5 + num_labels)) < 1e-9


def test_forward_end_equals_backward_start():
    log_blank, log_emit = random_moves(9, 4, batch=3, seed=1)
    lengths = torch.tensor([9, 6, 1]), torch.tensor([4, 2, 0])
    alpha, beta, total = score_lattice(log_blank, log_emit, *lengths)
    for row, (frames, labels) in enumerate(zip(*lengths, strict=True)):
        end = alpha[row, frames - 1, labels] + log_blank[row, frames - 1, labels]
        assert abs(end - total[row]) < 1e-10
        assert (beta[row, frames:] == NEVER).all()


def test_gradcheck():
    log_blank, log_emit = random_moves(4, 3, batch=2)
    lengths = torch.tensor([4, 3]), torch.tensor([3, 1])
    assert torch.autograd.gradcheck(
        lambda blank, emit: transducer_loss(blank, emit, *lengths),
        (log_blank.requires_grad_(), log_emit.requires_grad_()),
    )


def test_scores_stay_finite_where_a_path_is_all_but_impossible():
    """Stored log probabilities end at -6e4: forty of them must not swallow what comes after."""
    log_blank = torch.full((1, 6, 41), -1e-3)
    log_emit = torch.full((1, 6, 40), -6e4)
    log_emit[0, 2] = -1.0
    lengths = torch.tensor([6]), torch.tensor([40])
    loss = transducer_loss(log_blank, log_emit, *lengths)
    torch.testing.assert_close(loss, torch.tensor([40.0 + 6e-3]))
    lattice = score_lattice(log_blank, log_emit, *lengths)
    assert abs(node_posteriors(lattice).sum().item() - 46) < 1e-6


def random_batch(dtype=torch.float32, vocab_size=17, seed=0):
    torch.manual_seed(seed)
    encoded = torch.randn(3, 8, 6, dtype=dtype, requires_grad=True)
    predicted = torch.randn(3, 5, 6, dtype=dtype, requires_grad=True)
    output = nn.Linear(6, vocab_size, dtype=dtype)
    targets = torch.tensor([[3, 5, 2, 9], [1, 4, 0, 0], [7, 0, 0, 0]])
    return encoded, predicted, output, targets, torch.tensor([8, 5, 7]), torch.tensor([4, 2, 1])


@pytest.mark.parametrize("logits_per_slice", [1, 200, 600, 1_000_000])
def test_equals_torchaudio_in_value_and_gradient(monkeypatch, logits_per_slice):
    monkeypatch.setitem(LOGITS_PER_SLICE, "cpu", logits_per_slice)
    encoded, predicted, output, targets, logit_lengths, target_lengths = random_batch()
    inputs = [encoded, predicted, output.weight, output.bias]
    moves = joint_log_probs(encoded, predicted, output, targets)
    loss = transducer_loss(*moves, logit_lengths, target_lengths)
    gradients = torch.autograd.grad(loss.sum(), inputs)

    logits = output(torch.tanh(encoded.unsqueeze(2) + predicted.unsqueeze(1)))
    expected = torchaudio.functional.rnnt_loss(
        logits,
        targets.int(),
        logit_lengths.int(),
        target_lengths.int(),
        blank=0,
        reduction="none",
    )
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected.sum(), inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_joint_gradcheck():
    encoded, predicted, output, targets, *_ = random_batch(torch.float64, vocab_size=11)
    assert torch.autograd.gradcheck(
        lambda e, p, w, b: joint_log_probs(e, p, Weights(w, b), targets),
        (encoded, predicted, output.weight, output.bias),
    )


class Weights(torch.nn.Module):
    """Something with .weight and .bias that gradcheck may perturb."""

    def __init__(self, weight, bias):
        super().__init__()
        self.__dict__.update(weight=weight, bias=bias)


def test_padding_and_batch_order_change_nothing():
    encoded, predicted, output, targets, logit_lengths, target_lengths = random_batch()
    together = transducer_loss(
        *joint_log_probs(encoded, predicted, output, targets), logit_lengths, target_lengths
    )
    for row in (2, 0, 1):
        frames, labels = int(logit_lengths[row]), int(target_lengths[row])
        moves = joint_log_probs(
            encoded[row : row + 1, :frames],
            predicted[row : row + 1, : labels + 1],
            output,
            targets[row : row + 1, :labels],
        )
        alone = transducer_loss(*moves, torch.tensor([frames]), torch.tensor([labels]))
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-5)
