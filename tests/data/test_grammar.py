import random
import re
from collections import Counter
from pathlib import Path

import pytest

from compress.data.grammar import (
    COMMAND_WORDS,
    KINDS,
    SENTENCES,
    SLOTS,
    fill_template,
    sentences,
    vocabulary,
)
from compress.data.spelling import DIGITS, spell_number, spell_ordinal


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (45, "forty five"),
        (100, "one hundred"),
        (1305, "one thousand three hundred five"),
        (9999, "nine thousand nine hundred ninety nine"),
    ],
)
def test_spell_number(number: int, words: str) -> None:
    assert spell_number(number) == words


@pytest.mark.parametrize(
    ("day", "words"),
    [
        (1, "first"),
        (19, "nineteenth"),
        (20, "twentieth"),
        (21, "twenty first"),
        (31, "thirty first"),
    ],
)
def test_spell_ordinal(day: int, words: str) -> None:
    assert spell_ordinal(day) == words


def test_vocabulary_is_closed_and_of_the_promised_size() -> None:
    words = vocabulary()
    assert words == sorted(set(words))
    assert 250 <= len(words) <= 400
    assert len(COMMAND_WORDS) == 35 and set(COMMAND_WORDS) <= set(words)
    said = {word for text in sentences(20_000, seed=1) for word in text.split()}
    assert said == set(words)


def test_documentation_lists_the_vocabulary_and_every_slot() -> None:
    page = (Path(__file__).parents[2] / "docs" / "grammar.md").read_text()
    assert page.split("## All words")[1].split() == vocabulary()
    rows = [
        f"| {name} | "
        + ", ".join(f"`{c}`" if "{" in c else c or "(nothing)" for c in choices)
        + " |"
        for name, choices in SLOTS.items()
    ]
    assert [row for row in rows if row not in page] == []
    assert f"{len(SENTENCES)} templates" in page and f"{len(vocabulary())} words" in page


def test_months_are_equally_likely() -> None:
    drawn = Counter(fill_template("{month}", random.Random(i)) for i in range(3000))
    assert len(drawn) == 12 and min(drawn.values()) > 180


def test_sentences_hold_letters_and_apostrophes_only() -> None:
    for text in sentences(3000, seed=2):
        assert re.fullmatch(r"[a-z']+( [a-z']+)*", text)
        assert len(text.split()) <= 12


def test_kinds_come_in_their_shares() -> None:
    texts = sentences(4000, seed=3)
    digits = sum(set(text.split()) <= set(DIGITS) for text in texts) / len(texts)
    long = sum(len(text.split()) >= 3 and "the" in text.split() for text in texts) / len(texts)
    assert digits == pytest.approx(KINDS["digits"], abs=0.04)
    assert 0.25 < long < KINDS["sentence"] + 0.05
    isolated = Counter(text for text in texts if text in COMMAND_WORDS)
    assert len(isolated) >= 30


def test_seed_decides_and_a_longer_draw_begins_with_the_shorter() -> None:
    assert sentences(50, seed=4) == sentences(200, seed=4)[:50]
    assert sentences(50, seed=4) != sentences(50, seed=5)


def test_empty_choices_leave_no_double_blank() -> None:
    texts = {fill_template("call {person} {please}", random.Random(i)) for i in range(60)}
    assert all(text == " ".join(text.split()) for text in texts)
    assert any(text.split()[-1] not in ("please", "now") for text in texts)
