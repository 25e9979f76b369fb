"""Pieces: blank and unknown in their places, every letter, text that survives the round trip."""

from __future__ import annotations

import string

import pytest
import sentencepiece

from compress.data import grammar
from compress.data.tokenizer import Tokenizer, train_tokenizer
from streaming.errors import InputError


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(grammar.sentences(300, seed=0), 120)


def test_blank_and_unknown_come_first(tokenizer):
    assert tokenizer.vocab_size == 120
    assert tokenizer.tokens()[:2] == ["<blk>", "<unk>"]
    assert len(set(tokenizer.tokens())) == 120


def test_every_letter_has_a_piece(tokenizer):
    assert set(string.ascii_lowercase + "'") <= set(tokenizer.tokens())
    assert 1 not in tokenizer.encode(string.ascii_lowercase + "'")


def test_round_trip(tokenizer):
    for text in [*grammar.sentences(50, seed=1), "o'clock", "zyzzyva's quiz", ""]:
        tokens = tokenizer.encode(text)
        assert all(1 < token < 120 for token in tokens)
        assert tokenizer.decode(tokens) == text


def test_blank_and_unknown_decode_to_nothing(tokenizer):
    tokens = tokenizer.encode("turn on")
    assert tokenizer.decode([0, 1, *tokens, 0]) == "turn on"


def test_a_sign_without_a_piece_is_unknown(tokenizer):
    assert 1 in tokenizer.encode("größe")


def test_stored_model_is_the_same(tokenizer, tmp_path):
    (tmp_path / "bpe.model").write_bytes(tokenizer.model)
    loaded = Tokenizer.load(tmp_path / "bpe.model")
    assert loaded.tokens() == tokenizer.tokens()


def test_same_texts_same_model(tokenizer):
    assert train_tokenizer(grammar.sentences(300, seed=0), 120).model == tokenizer.model


def test_foreign_model_is_refused(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["turn on the light"] * 9),
        model_prefix=str(tmp_path / "other"),
        vocab_size=16,
        minloglevel=2,
    )
    with pytest.raises(InputError, match=r"token 0 of .*other\.model is '<unk>', not <blk>"):
        Tokenizer.load(tmp_path / "other.model")
