"""Phrases as text -> token ids, by the vocabulary of a bundle alone.

A SentencePiece model of type bpe numbers its pieces in the order in which they were learned, and
splits a text by merging, again and again, the two neighbours whose piece was learned first. So
tokens.txt is enough to split as it does (tests/streaming/test_spelling.py). Of other models the
split may differ from the training's; the pieces still spell the phrase.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from streaming.errors import InputError
from streaming.search.hotwords import Phrases
from streaming.tokens import BLANK, UNKNOWN, WORD_START

MAX_SCORE = 100.0
MAX_PHRASE = 1000  # characters
MAX_FILE_BYTES = 10_000_000


class Speller:
    """Splits phrases into the pieces of a vocabulary; symbols: its pieces by id."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._ids = {s: i for i, s in enumerate(symbols) if s not in (BLANK, UNKNOWN)}

    def spell(self, phrase: str) -> tuple[int, ...]:
        """Token ids; a vocabulary of one case takes the phrase in that case.

        Raises InputError for a phrase that has a sign without a token.
        """
        words = phrase.split()
        if not words or len(phrase) > MAX_PHRASE:
            raise InputError(
                f"hotword {phrase[:40]!r}: give a phrase of 1 to {MAX_PHRASE} characters"
            )
        text = WORD_START + WORD_START.join(words)
        for variant in (text, text.lower(), text.upper()):
            ids = self._look_up(self._merge(variant))
            if None not in ids:
                return tuple(i for i in ids if i is not None)
        missing = [s for s in text if s != WORD_START and None in self._look_up([s])]
        reason = f"{missing[0]!r} is not" if missing else "it cannot be spelled"
        raise InputError(f"hotword {phrase!r}: {reason} in the vocabulary: leave the phrase out")

    def _merge(self, text: str) -> list[str]:
        """The pieces of a text, its signs where no piece covers them."""
        pieces = list(text)
        while len(pieces) > 1:
            pairs = [self._ids.get(a + b) for a, b in itertools.pairwise(pieces)]
            known = [i for i in pairs if i is not None]
            if not known:
                break
            place = pairs.index(min(known))
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        return pieces

    def _look_up(self, pieces: Iterable[str]) -> list[int | None]:
        """The id of each piece; one without an id as its UTF-8 bytes, where the model has those."""
        ids: list[int | None] = []
        for piece in pieces:
            if piece in self._ids:
                ids.append(self._ids[piece])
            else:
                text = piece.replace(WORD_START, "▁")
                ids += [self._ids.get(f"<0x{byte:02X}>") for byte in text.encode()]
        return ids


def spell_phrases(lines: Iterable[str], speller: Speller, score: float) -> Phrases:
    """Lines as in sherpa-onnx's hotwords file, `PHRASE` or `PHRASE :2.0`; empty ones are passed.

    score: of the phrases that bring none. Raises InputError naming the phrase at fault.
    """
    check_score(score, "hotwords_score")
    phrases = []
    for line in lines:
        phrase, mark, number = line.strip().rpartition(" :")
        if not mark:
            phrase = line.strip()
        if phrase:
            own = _read_score(number, line) if mark else score
            phrases.append((speller.spell(phrase), own))
    return tuple(phrases)


def _read_score(number: str, line: str) -> float:
    try:
        return check_score(float(number), f"hotword {line.strip()!r}: its score")
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"hotword {line.strip()!r}: {number!r} is no score: write PHRASE or PHRASE :2.0"
        ) from None


def check_score(score: float, name: str) -> float:
    if not (math.isfinite(score) and 0 < score <= MAX_SCORE):
        raise InputError(f"{name} is {score:g}: give more than 0 and at most {MAX_SCORE:g}, as 1.5")
    return score


def read_lines(path: Path) -> list[str]:
    """The lines of a hotwords file. Raises InputError for one that is missing or no text."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: more than {MAX_FILE_BYTES // 10**6} MB: take fewer hotwords")
        return path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: --hotwords-file is a phrase a line") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8: save the hotwords file as UTF-8 text") from None


def split_phrases(hotwords: str | Iterable[str]) -> list[str]:
    """Phrases as a list, or as sherpa-onnx's string with / between them."""
    return hotwords.replace("/", "\n").splitlines() if isinstance(hotwords, str) else [*hotwords]
