"""What a run trains on: names of sets, strings of words, texts the model has tokens for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from compress.data.sets import check_texts, drop_unreachable, set_name
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


def test_utterances_too_short_for_their_text_are_left_out(capsys):
    tokenizer = build_tokenizer()
    num_tokens = len(tokenizer.encode("one two"))
    frames = 4 * num_tokens - 8
    rows = [
        SimpleNamespace(id=f"u{n}", data="mine", text="one two", num_frames=num)
        for n, num in enumerate([frames, frames - 4, 400])
    ]
    store = SimpleNamespace(rows=rows)
    drop_unreachable(store, tokenizer, tail_frames=8)
    assert [row.id for row in store.rows] == ["u0", "u2"]
    said = capsys.readouterr().err
    assert "mine: 1 utterances too short for their text: left out" in said
    assert "u1" in said
    with pytest.raises(InputError, match="every utterance is too short"):
        drop_unreachable(SimpleNamespace(rows=rows[1:2]), tokenizer, tail_frames=8)
