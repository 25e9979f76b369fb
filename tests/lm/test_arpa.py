"""An n-gram model as ARPA, read back by the decoder's reader: the same probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.lm.arpa import write_arpa
from compress.lm.fusion import fuse as torch_fuse
from compress.train_lm import LmSettings, load_tokenizer, train_lm
from streaming.search.arpa import read_arpa
from streaming.search.fusion import fuse
from streaming.search.ngram import BackoffTables, NgramLm
from streaming.search.settings import open_lm
from streaming.tokens import WORD_START
from tests.lm.tiny_models import VOCAB_SIZE, random_sentences, tiny_ngram
from tests.reference.ngram import SlowNgram

PIECES = ["<blk>", "<unk>", *(f"▁{letter}" for letter in "abcde")]
SYMBOLS = [piece.replace("▁", WORD_START) for piece in PIECES]


@pytest.mark.parametrize("order", [2, 3, 4])
def test_distributions_are_those_of_the_model(order, tmp_path):
    lm = tiny_ngram(order=order)
    write_arpa(lm, PIECES, tmp_path / "lm.arpa")
    decoder = open_lm(tmp_path / "lm.arpa", SYMBOLS, 0)
    rng = np.random.default_rng(order)
    for _ in range(60):
        labels = rng.integers(2, VOCAB_SIZE, size=rng.integers(0, 7)).tolist()
        context, state = decoder.start(), lm.start(1)
        for label in labels:
            context = decoder.advance(context, label)
            state = lm.advance(state, torch.tensor([label]))
        assert len(context) <= order - 1
        np.testing.assert_allclose(
            decoder.next_labels(context)[2:], lm.first(state)[0, 2:].numpy(), atol=1e-4
        )
        assert (decoder.next_labels(context)[:2] < -1e3).all()


def test_events_are_those_of_dictionaries_and_recursion(tmp_path):
    sentences = random_sentences(40, seed=2)
    write_arpa(tiny_ngram(sentences), PIECES, tmp_path / "lm.arpa")
    events = BackoffTables(read_arpa(tmp_path / "lm.arpa", SYMBOLS, 0), VOCAB_SIZE)
    slow = SlowNgram(sentences, 3, VOCAB_SIZE)
    for context in ((0,), (0, 2), (2, 2), (3, 5), (5, 6), (6, 6)):
        for token in (0, 2, 3, 4, 5, 6):
            wanted = np.log(slow.probability(token, context))
            assert events(context)[token] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("blank_id", [0, 6])
def test_blank_may_be_any_token(tmp_path, blank_id):
    write_arpa(tiny_ngram(), PIECES, tmp_path / "lm.arpa")
    symbols = [*SYMBOLS[1:], SYMBOLS[0]] if blank_id else SYMBOLS
    lm = open_lm(tmp_path / "lm.arpa", symbols, blank_id)
    found = dict(zip(symbols, lm.next_labels(lm.start()), strict=True))
    reference = open_lm(tmp_path / "lm.arpa", SYMBOLS, 0)
    wanted = dict(zip(SYMBOLS, reference.next_labels(reference.start()), strict=True))
    assert found == pytest.approx(wanted, abs=1e-5)


def test_train_lm_writes_it(tokenizer_file, text, tmp_path):
    train_lm(LmSettings(order=3), tokenizer_file, [text], [], tmp_path / "lm")
    tokens = load_tokenizer(tokenizer_file).tokens()
    lm = open_lm(tmp_path / "lm" / "lm.arpa", [t.replace("▁", WORD_START) for t in tokens], 0)
    assert isinstance(lm, NgramLm) and lm.order == 3
    assert np.exp(lm.next_labels(lm.start())).sum() == pytest.approx(1, abs=1e-4)


def test_fusion_is_that_of_training():
    rng = np.random.default_rng(0)
    logits, lm = rng.standard_normal((2, 9, VOCAB_SIZE)).astype(np.float32)
    log_probs = torch.tensor(logits).log_softmax(-1)
    wanted = torch_fuse(log_probs, torch.tensor(lm), 0.3).numpy()
    lm[:, 1] = -6e4 / 0.3
    np.testing.assert_allclose(fuse(log_probs.numpy(), lm, 0.3, 0)[:, 2:], wanted[:, 2:], atol=1e-5)
    np.testing.assert_allclose(fuse(log_probs.numpy(), lm, 0.3, 0)[:, 0], wanted[:, 0], atol=1e-6)
