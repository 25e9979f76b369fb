"""Phrases are split as SentencePiece splits them, by the vocabulary alone."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming import InputError
from streaming.search import Speller, spell_phrases

TEACHER = Path(__file__).parents[2] / "compress" / "assets" / "demo-teacher"
words = st.text("abcdefghijklmnopqrstuvwxyz'", min_size=1, max_size=12)


@pytest.fixture(scope="module")
def tokenizer():
    sentencepiece = pytest.importorskip("sentencepiece")
    return sentencepiece.SentencePieceProcessor(model_file=str(TEACHER / "bpe.model"))


@pytest.fixture(scope="module")
def speller(tokenizer):
    pieces = [tokenizer.id_to_piece(i) for i in range(tokenizer.vocab_size())]
    return Speller(["<blk>", *(piece.replace("▁", " ") for piece in pieces[1:])])


@settings(max_examples=300, deadline=None)
@given(phrase=st.lists(words, min_size=1, max_size=5))
def test_as_sentencepiece_does(tokenizer, speller, phrase):
    text = " ".join(phrase)
    assert list(speller.spell(text)) == tokenizer.encode(text)


def test_the_case_of_the_vocabulary(speller):
    assert speller.spell("Turn  ON") == speller.spell("turn on")
    assert Speller(["<blk>", "<unk>", " A", "B"]).spell("ab") == (2, 3)


def test_bytes_where_a_sign_has_no_piece():
    symbols = ["<blk>", "<unk>", " ", "a", *(f"<0x{byte:02X}>" for byte in range(256))]
    assert Speller(symbols).spell("aé") == (2, 3, 4 + 0xC3, 4 + 0xA9)


def test_scripts_without_spaces():
    assert Speller(["<blk>", "<unk>", " ", "你", "好"]).spell("你好") == (2, 3, 4)


@pytest.mark.parametrize("phrase", ["", "a" * 2000, "a b!", "日本"])
def test_what_cannot_be_spelled_is_named(speller, phrase):
    with pytest.raises(InputError, match="hotword"):
        speller.spell(phrase)


def test_lines_with_scores(speller):
    phrases = spell_phrases(["turn on :2.0", "", " lights "], speller, 1.5)
    assert [score for _, score in phrases] == [2.0, 1.5]
    assert phrases[1][0] == speller.spell("lights")
