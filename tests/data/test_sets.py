"""What a run trains on: names of sets, strings of words, texts the model has tokens for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from compress.data.sets import check_texts, set_name
from streaming.errors import InputError
from tests.tiny_teacher import build_tokenizer


def test_texts_without_tokens():
    rows = [
        SimpleNamespace(id=f"u{n}", data="mine", text=t) for n, t in enumerate(["on", "turn 2"])
    ]
    tokenizer = build_tokenizer()
    check_texts(SimpleNamespace(rows=rows[:1]), tokenizer)
    with pytest.raises(InputError, match=r"mine, utterance u1: 'turn 2' has signs .* as words"):
        check_texts(SimpleNamespace(rows=rows), tokenizer)


def test_names_of_sets():
    for spec in ("data/words", "data/words/manifest.jsonl", "data/words/cuts.jsonl.gz"):
        assert set_name(spec) == "words"
    assert set_name("data/words.jsonl") == "words"
