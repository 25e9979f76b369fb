"""Kneser-Ney: by hand, against dictionaries and recursion, and whether it foresees anything."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from compress.lm import kneser_ney
from compress.lm.config import NgramConfig
from compress.lm.kneser_ney import check_order, discounts
from compress.lm.ngram import NOTHING, NgramModel
from streaming.errors import InputError
from tests.lm.tiny_models import SHA, VOCAB_SIZE, random_sentences, stream, tiny_ngram
from tests.reference.ngram import SlowNgram

A, B, C, D = 2, 3, 4, 5


def all_contexts(order: int) -> np.ndarray:
    """Every context of order - 1 tokens, sentence starts included."""
    inner = list(itertools.product([A, B, C, D, 6], repeat=order - 1))
    opening = [
        (*[NOTHING] * (order - 2 - length), 0, *tokens)
        for length in range(order - 1)
        for tokens in itertools.product([A, B, C, D, 6], repeat=length)
    ]
    return np.array(inner + opening)


def test_by_hand():
    """ "a b" and "a c": 4 bigrams once and one twice, so the discounts are 0.5 and 1."""
    found = tiny_ngram([[A, B], [A, C]], order=2, vocab_size=6).probabilities(
        np.array([[0], [A], [B], [D]])
    )
    # left neighbours: end 2 (b, c), a 1 (start), b 1, c 1; 5 events; d is never seen
    taken = (1.0 + 3 * 0.5) / 5
    unigram = np.array([1 / 5, 0, 0.1, 0.1, 0.1, 0]) + taken / 5 * np.array([1, 0, 1, 1, 1, 1])
    expected = [
        np.array([0, 0, 0.5, 0, 0, 0]) + 0.5 * unigram,  # a followed the start twice: (2 - 1) / 2
        np.array([0, 0, 0, 0.25, 0.25, 0]) + 0.5 * unigram,  # b and c once each: (1 - 0.5) / 2
        np.array([0.5, 0, 0, 0, 0, 0]) + 0.5 * unigram,
        unigram,  # nothing followed d: all of it comes from the shorter context
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize("num", [1, 40, 400])
def test_as_the_slow_twin(order, num):
    sentences = random_sentences(num, seed=num)
    lm, twin = tiny_ngram(sentences, order), SlowNgram(sentences, order, VOCAB_SIZE)
    contexts = all_contexts(order)
    contexts = contexts[:: len(contexts) // 30 + 1]
    found = lm.probabilities(contexts)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    for context, row in zip(contexts, found, strict=True):
        known = tuple(token for token in context.tolist() if token != NOTHING)
        expected = [twin.probability(token, known) for token in range(VOCAB_SIZE)]
        np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_estimated_discounts_are_met_by_the_twin_too():
    """Of 400 sentences some order has n-grams of each count from 1 to 4."""
    twin = SlowNgram(random_sentences(400, seed=400), 4, VOCAB_SIZE)
    estimated = [discounts(np.array(list(counts.values()))) for counts in twin.counts.values()]
    assert any(tuple(found[1:]) != kneser_ney.FALLBACK_DISCOUNTS for found in estimated)


def test_discounts_by_hand():
    """n1, n2, n3, n4 = 4, 2, 1, 1: Y = 4 / 8; D = 1 - 2Y/2, 2 - 3Y/2, 3 - 4Y."""
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4, 9, 9])
    assert discounts(counts).tolist() == [0, 0.5, 1.25, 1.0]


@pytest.mark.parametrize("counts", [[1, 1, 2, 2, 3, 3], [1] + [2] * 2 + [3] * 9 + [4] * 9, []])
def test_discounts_that_cannot_be_estimated(counts):
    assert tuple(discounts(np.array(counts, int))) == (0, *kneser_ney.FALLBACK_DISCOUNTS)


def test_chunks_of_a_text_are_the_text():
    sentences = random_sentences(30)
    config = NgramConfig(vocab_size=VOCAB_SIZE, order=4)
    whole = NgramModel.train([stream(sentences)], config, SHA).tensors()
    parts = [stream(sentences[start : start + 7]) for start in range(0, 30, 7)]
    pieces = NgramModel.train(parts, config, SHA).tensors()
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)


def test_sentences_shorter_than_the_order():
    found = tiny_ngram([[A], [B]], order=5).probabilities(all_contexts(5)[:50])
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


def test_it_foresees_more_than_its_unigram():
    """Sentences of a Markov chain: entropy 0.61 nats an event, 1.3 without the context."""
    rng = np.random.default_rng(0)
    jump = {0: [A, B], A: [B, B, B, C], B: [C, C, C, 0], C: [A, D, D, 0], D: [0, 0, 0, A]}

    def sentence():
        tokens = [0]
        while tokens[-1] or len(tokens) == 1:
            tokens.append(int(rng.choice(jump[tokens[-1]])))
        return tokens[1:-1]

    lm = tiny_ngram([sentence() for _ in range(500)], order=3)
    held_out = [sentence() for _ in range(100)]
    with_context, without = 0.0, 0.0
    events = 0
    for tokens in held_out:
        log_events = lm.log_events(torch.tensor([tokens]))[0]
        chosen = torch.tensor([*tokens, 0])
        with_context -= log_events.gather(1, chosen.unsqueeze(1)).sum().item()
        without -= float(np.log(lm.unigram[chosen.numpy()]).sum())
        events += len(chosen)
    assert math.exp(with_context / events) < 0.6 * math.exp(without / events)


def test_too_many_ngrams(monkeypatch):
    monkeypatch.setattr(kneser_ney, "MAX_NGRAMS", 20)
    with pytest.raises(InputError, match=r"more than 20 different n-grams .*lower --order"):
        tiny_ngram(random_sentences(60))


def test_order_beyond_64_bits():
    check_order(4, 8192)
    with pytest.raises(InputError, match=r"order 5 is too much for 8192 tokens: take --order 3"):
        check_order(5, 8192)
