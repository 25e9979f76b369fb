"""An n-gram model as an ARPA file, for decoders: streaming/search/arpa.py reads it.

The file lists of every n-gram its whole probability, interpolation included, and of every context
its backoff. Tokens are pieces, the word-start mark as ▁; <s> and </s> are a sentence's ends. The
unknown token, which the model gives nothing, is as improbable as the least probable piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from compress.atomic import write_atomically
from compress.data.tokenizer import UNKNOWN_ID
from compress.lm.model import BOUNDARY
from compress.lm.ngram import NOTHING, NgramModel
from compress.progress import track

CHUNK_CONTEXTS = 2000
START, END, UNKNOWN = "<s>", "</s>", "<unk>"


def write_arpa(lm: NgramModel, pieces: Sequence[str], path: Path) -> None:
    """pieces: the text of each token id. Raises InputError when the disk is full."""

    def write(file: Path) -> None:
        with file.open("w", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in arpa_lines(lm, pieces))

    write_atomically(path, write)


def arpa_lines(lm: NgramModel, pieces: Sequence[str]) -> Iterator[str]:
    counts = [len(lm.unigram) + 1, *(len(level.tokens) for level in lm.levels)]
    yield "\\data\\"
    yield from (f"ngram {length}={count}" for length, count in enumerate(counts, 1))
    yield "\n\\1-grams:"
    yield from unigram_lines(lm, pieces)
    for length in range(2, lm.config.order + 1):
        yield f"\n\\{length}-grams:"
        yield from level_lines(lm, pieces, length)
    yield "\n\\end\\"


def unigram_lines(lm: NgramModel, pieces: Sequence[str]) -> Iterator[str]:
    backoffs = log_backoffs(lm, np.arange(lm.vocab_size), 1)
    log_probs = np.log10(np.where(lm.unigram > 0, lm.unigram, 1.0))
    yield f"{log_probs.min():.6f}\t{UNKNOWN}\t0"
    yield f"-99\t{START}\t{backoffs[BOUNDARY]:.6f}"
    yield f"{log_probs[BOUNDARY]:.6f}\t{END}"
    for token in range(lm.vocab_size):
        if token not in (BOUNDARY, UNKNOWN_ID):
            yield f"{log_probs[token]:.6f}\t{pieces[token]}\t{backoffs[token]:.6f}"


def level_lines(lm: NgramModel, pieces: Sequence[str], length: int) -> Iterator[str]:
    """Every n-gram of one length, a few thousand contexts at a time."""
    level = lm.levels[length - 2]
    chunks = range(0, len(level.contexts), CHUNK_CONTEXTS)
    for first in track(chunks, f"{length}-grams as ARPA", len(chunks)):
        keys = level.contexts[first : first + CHUNK_CONTEXTS]
        digits = split_keys(keys, length - 1, lm.vocab_size)
        padded = np.full((len(keys), lm.config.order - 1), NOTHING)
        padded[:, -digits.shape[1] :] = digits
        distributions = lm.probabilities(padded)
        starts = level.starts[first : first + len(keys) + 1]
        rows = np.repeat(np.arange(len(keys)), np.diff(starts))
        tokens = level.tokens[starts[0] : starts[-1]]
        log_probs = np.log10(distributions[rows, tokens])
        backoffs = log_backoffs(lm, keys[rows] * lm.vocab_size + tokens, length)
        contexts = [" ".join(name(pieces, token, START) for token in row) for row in digits]
        for row, token, log_prob, backoff in zip(rows, tokens, log_probs, backoffs, strict=True):
            line = f"{log_prob:.6f}\t{contexts[row]} {name(pieces, token, END)}"
            yield (
                line
                if length == lm.config.order or token == BOUNDARY
                else (f"{line}\t{backoff:.6f}")
            )


def log_backoffs(lm: NgramModel, keys: np.ndarray, length: int) -> np.ndarray:
    """log10 of what contexts of `length` tokens leave for the shorter one; 0 of unseen ones."""
    result = np.zeros(len(keys))
    if length < lm.config.order:
        level = lm.levels[length - 1]
        places = np.searchsorted(level.contexts, keys)
        found = places < len(level.contexts)
        found[found] = level.contexts[places[found]] == keys[found]
        result[found] = np.log10(level.backoffs[places[found]])
    return result


def split_keys(keys: np.ndarray, length: int, vocab_size: int) -> np.ndarray:
    """Integers -> their digits in base vocab_size, (n, length)."""
    powers = vocab_size ** np.arange(length - 1, -1, -1)
    return keys[:, None] // powers % vocab_size


def name(pieces: Sequence[str], token: int, boundary: str) -> str:
    return boundary if token == BOUNDARY else pieces[token]
