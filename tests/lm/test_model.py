"""What both kinds of language model promise: whole sequences and single steps agree."""

from __future__ import annotations

import pytest
import torch

from compress.lm import check_tokenizer, fingerprint
from compress.lm.model import NEVER
from streaming.errors import InputError
from tests.lm.tiny_models import MODELS, VOCAB_SIZE, tiny_lstm, tiny_ngram
from tests.tiny_teacher import build_tokenizer

TARGETS = torch.tensor([[2, 3, 2, 4, 6], [5, 2, 0, 0, 0], [0, 0, 0, 0, 0]])
LENGTHS = torch.tensor([5, 2, 0])


@pytest.fixture(params=sorted(MODELS))
def lm(request):
    return MODELS[request.param]()


def test_distributions_over_labels(lm):
    found = lm.log_probs(TARGETS, LENGTHS)
    assert found.shape == (3, 6, VOCAB_SIZE)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert (found[..., :2] == NEVER).all()
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(3, 6))


def test_the_end_is_divided_out(lm):
    """p(k) / (1 - p(end)): labels keep their ratios."""
    events = lm.log_events(TARGETS).detach()
    torch.testing.assert_close(events.exp().sum(-1), torch.ones(3, 6))
    expected = events[0, :, 2:] - torch.log1p(-events[0, :, :1].exp())
    torch.testing.assert_close(lm.log_probs(TARGETS, LENGTHS)[0, :, 2:], expected)


def test_steps_are_the_rows(lm):
    rows = lm.log_probs(TARGETS, LENGTHS)
    state = lm.start(3)
    torch.testing.assert_close(lm.first(state), rows[:, 0])
    for u in range(5):
        found, state = lm.step(state, TARGETS[:, u])
        assert not found.requires_grad
        inside = u + 1 <= LENGTHS
        torch.testing.assert_close(found[inside], rows[inside, u + 1])


def test_padding_changes_nothing_and_says_nothing(lm):
    found = lm.log_probs(TARGETS, LENGTHS)
    alone = lm.log_probs(TARGETS[1:2, :2], LENGTHS[1:2])
    torch.testing.assert_close(found[1, :3], alone[0])
    assert (found[1, 3:, 2:].exp() - 1 / (VOCAB_SIZE - 2)).abs().max() < 1e-6


def test_no_labels_at_all(lm):
    found = lm.log_probs(torch.zeros(2, 0, dtype=torch.long), torch.tensor([0, 0]))
    torch.testing.assert_close(found[:, 0], lm.first(lm.start(2)))


def test_hypotheses_are_selected_and_branch(lm):
    state = lm.start(2)
    _, before = lm.step(state, torch.tensor([2, 3]))
    branched = lm.select(before, torch.tensor([1, 1, 0]))
    found, _ = lm.step(branched, torch.tensor([4, 5, 4]))
    for row, tokens in enumerate([[3, 4], [3, 5], [2, 4]]):
        expected = lm.log_probs(torch.tensor([tokens]), torch.tensor([2]))[0, 2]
        torch.testing.assert_close(found[row], expected)
    again, _ = lm.step(before, torch.tensor([4, 4]))
    torch.testing.assert_close(again[1], found[0])


def test_float32_under_autocast(lm):
    expected = lm.log_probs(TARGETS, LENGTHS)
    stepped, _ = lm.step(lm.start(3), TARGETS[:, 0])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lm.log_probs(TARGETS, LENGTHS), expected)
        assert torch.equal(lm.step(lm.start(3), TARGETS[:, 0])[0], stepped)


def test_labels_training_never_saw_are_possible(lm):
    assert lm.log_probs(TARGETS, LENGTHS)[..., 6].min() > -20


def test_tokenizers_must_agree():
    tokenizer = build_tokenizer()
    lm = tiny_ngram(vocab_size=tokenizer.vocab_size)
    lm.tokenizer_sha256 = fingerprint(tokenizer)
    check_tokenizer(lm, tokenizer)
    lm.tokenizer_sha256 = fingerprint(tokenizer)[::-1]
    with pytest.raises(InputError, match=r"another vocabulary .* train it with compress train-lm"):
        check_tokenizer(lm, tokenizer)
    with pytest.raises(InputError, match=r"has 7 tokens, the teacher 48: train it with"):
        check_tokenizer(tiny_lstm(), tokenizer)
