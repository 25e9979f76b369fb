"""The joiner on a path against the whole lattice, and the classes that a target tells apart."""

from __future__ import annotations

import math

import torch

from compress.losses.lattice import NEVER
from compress.losses.path import merge_classes, path_logits
from compress.models.joiner import Joiner

FRAMES = torch.tensor([[0, 0, 1, 3], [0, 1, 0, 0]])
ROWS = torch.tensor([[0, 1, 1, 2], [0, 0, 0, 0]])


def random_network(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    encoded = torch.randn(2, 4, 5, dtype=dtype, requires_grad=True)
    predicted = torch.randn(2, 3, 5, dtype=dtype, requires_grad=True)
    return Joiner(5, 9).to(dtype), encoded, predicted


def test_equals_the_lattice_on_the_nodes():
    """Values and all gradients: (T, U+1) logits of which the path's are picked afterwards."""
    joiner, encoded, predicted = random_network(dtype=torch.float64)
    inputs = [encoded, predicted, *joiner.parameters()]
    lattice = joiner(encoded.unsqueeze(2), predicted.unsqueeze(1))
    wanted = torch.stack([lattice[b, FRAMES[b], ROWS[b]] for b in range(2)])
    found = path_logits(joiner, encoded, predicted, FRAMES, ROWS)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, wanted)
    weights = torch.randn_like(wanted)
    ours = torch.autograd.grad((found * weights).sum(), inputs)
    theirs = torch.autograd.grad((wanted * weights).sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_float32_under_autocast():
    joiner, encoded, predicted = random_network()
    wanted = path_logits(joiner, encoded, predicted, FRAMES, ROWS)
    with torch.autocast("cpu", torch.bfloat16):
        found = path_logits(joiner, encoded.bfloat16(), predicted.bfloat16(), FRAMES, ROWS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0.05)


def test_classes_by_hand():
    """Probabilities .5 .1 .3 .06 .04 with tokens 0 and 2 told apart: .5 .3 and .2 for the rest."""
    logits = torch.tensor([0.5, 0.1, 0.3, 0.06, 0.04]).log() + 7.0
    merged = merge_classes(logits, torch.tensor([0, 2])).softmax(-1)
    torch.testing.assert_close(merged, torch.tensor([0.5, 0.3, 0.2]))


def test_a_tiny_rest_does_not_cancel():
    """e^-30 beside 1 in float32: 1 - p would be 0."""
    merged = merge_classes(torch.tensor([0.0, -30.0, -31.0]), torch.tensor([0]))
    assert math.isclose(merged[1].item(), -30 + math.log1p(math.exp(-1)), rel_tol=1e-6)


def test_no_rest_when_all_are_told_apart():
    logits = torch.randn(3, 4, requires_grad=True)
    tokens = torch.tensor([[0, 3, 1, 2]]).expand(3, -1)
    merged = merge_classes(logits, tokens)
    assert torch.equal(merged[:, :4], logits.gather(-1, tokens))
    assert (merged[:, 4] == NEVER).all()
    (gradient,) = torch.autograd.grad(merged.log_softmax(-1)[:, 0].sum(), logits)
    (wanted,) = torch.autograd.grad(logits.log_softmax(-1)[:, 0].sum(), logits)
    torch.testing.assert_close(gradient, wanted)


def test_gradcheck():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    tokens = torch.randn(2, 3, 6).topk(4).indices
    assert torch.autograd.gradcheck(lambda values: merge_classes(values, tokens), logits)
