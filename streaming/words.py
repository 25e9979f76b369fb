"""Words from SentencePiece pieces: when each was said, and how sure the model was of it.

A word begins at a piece with the word-start mark and goes on to the next one. So it is in every
language; where a script writes no spaces, a run of pieces without a mark is one word.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from streaming.tokens import WORD_START, pieces_to_text

LAST_TOKEN_SECONDS = 0.4  # a token's timestamp is where it was emitted; its sound goes on a little


@dataclass(frozen=True)
class Word:
    """Seconds as in Result.timestamps; confidence in [0, 1], see word_confidence()."""

    text: str
    start_seconds: float
    end_seconds: float
    confidence: float


def build_words(
    pieces: Sequence[str], timestamps: Sequence[float], log_probs: Sequence[float]
) -> list[Word]:
    """A word ends after its last token, at the latest where the next begins.

    log_probs: log P of each piece in nats; without any the confidence is 1.
    """
    words = []
    for start, stop in itertools.pairwise([*find_starts(pieces), len(pieces)]):
        end = round(timestamps[stop - 1] + LAST_TOKEN_SECONDS, 3)
        if stop < len(pieces):
            end = min(end, timestamps[stop])
        text = pieces_to_text(pieces[start:stop])
        if text:
            confidence = word_confidence(log_probs[start:stop])
            words.append(Word(text, timestamps[start], end, confidence))
    return words


def find_starts(pieces: Sequence[str]) -> list[int]:
    """Where words begin; the first piece always begins one."""
    return [n for n, piece in enumerate(pieces) if n == 0 or piece.startswith(WORD_START)]


def word_confidence(log_probs: Sequence[float]) -> float:
    """exp of the mean log P of the word's tokens; why not the smallest: bench/LOG.md."""
    return round(math.exp(sum(log_probs) / max(len(log_probs), 1)), 4)


def count_stable(certain: Sequence[str]) -> int:
    """How many of the certain pieces are of whole words: all before the last word, it may go on."""
    for place in range(len(certain) - 1, 0, -1):
        if certain[place].startswith(WORD_START):
            return place
    return 0
