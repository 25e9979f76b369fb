"""Interpolated modified Kneser-Ney: counts of token n-grams, discounted (Chen, Goodman 1998).

    P(w | h) = max(c(hw) - D(c), 0) / c(h) + backoff(h) P(w | h'),   h' = h without its first token
    backoff(h) = (D1 N1(h) + D2 N2(h) + D3 N3+(h)) / c(h)

c is the count in the text for the highest order and for n-grams at a sentence's start (nothing
stands before them), and the number of different tokens seen before the n-gram for the others.
Order 1 backs off to the uniform distribution over the V - 1 events: labels 2 .. V-1 and the end.

An n-gram is one integer, its tokens the digits in base V, so sorting sorts by context.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from compress.data.tokenizer import UNKNOWN_ID
from compress.lm.model import BOUNDARY
from streaming.errors import InputError

# n-grams of the highest order. 1 GB of memory while counting.
MAX_NGRAMS = 20_000_000
# Discounts where a small or closed text has no n-gram of some count to estimate them from.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)

Array = np.ndarray


class Counts(NamedTuple):
    """Different n-grams of one length, ascending, and how often each was seen."""

    keys: Array
    counts: Array


class Level(NamedTuple):
    """All n-grams of one length, by context: row r of `contexts` owns starts[r]:starts[r + 1].

    contexts (R,) int64 ascending; starts (R + 1,) int64; tokens, shares (C,): the next token and
    its discounted probability; backoffs (R,) float32: what is left for the shorter context.
    """

    contexts: Array
    starts: Array
    tokens: Array
    shares: Array
    backoffs: Array


def check_order(order: int, vocab_size: int) -> None:
    """Raises InputError when n-grams of so many tokens do not fit into 64 bits."""
    if vocab_size**order >= 2**62:
        raise InputError(f"order {order} is too much for {vocab_size} tokens: take --order 3")


def estimate(chunks: Iterable[Array], order: int, vocab_size: int) -> tuple[Array, list[Level]]:
    """Unigram probabilities (V,) and the levels 2 .. order.

    chunks: int arrays of whole sentences, 0 before the first and after each. Raises InputError
    for a text with too many different n-grams.
    """
    counted = count(chunks, order, vocab_size)
    counts = counted[order]
    levels = [build_level(counts, vocab_size)]
    for length in range(order - 1, 0, -1):
        counts = add([continuations(counts, vocab_size**length), counted.get(length)])
        if length > 1:
            levels.insert(0, build_level(counts, vocab_size))
    return build_unigram(counts, vocab_size), levels


def count(chunks: Iterable[Array], order: int, vocab_size: int) -> dict[int, Counts]:
    """n-grams of the highest order, and those of 2 .. order - 1 tokens that open a sentence."""
    total: dict[int, Counts] = {}
    for chunk in chunks:
        for length in range(2, order + 1):
            keys = pack(chunk, length, vocab_size, opening=length < order)
            counts = Counts(*np.unique(keys, return_counts=True))
            total[length] = add([total.get(length), counts])
            if len(total[length].keys) > MAX_NGRAMS:
                raise InputError(
                    f"the text has more than {MAX_NGRAMS} different n-grams of order {length}: "
                    "take a lower --order or less text"
                )
    return total


def pack(chunk: Array, length: int, vocab_size: int, opening: bool) -> Array:
    """The n-grams of a chunk as integers; none goes past a sentence's end."""
    num = max(0, len(chunk) - length + 1)
    columns = [chunk[start : start + num].astype(np.int64) for start in range(length)]
    whole = np.ones(num, bool)
    for column in columns[1:-1]:
        whole &= column != BOUNDARY
    if opening:
        whole &= columns[0] == BOUNDARY
    keys = np.zeros(num, np.int64)
    for column in columns:
        keys = keys * vocab_size + column
    return keys[whole]


def add(parts: list[Counts | None]) -> Counts:
    """One table of several; counts of the same n-gram add up."""
    present = [part for part in parts if part is not None]
    keys = np.concatenate([part.keys for part in present])
    counts = np.concatenate([part.counts for part in present])
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    if not len(keys):
        return Counts(keys, counts)
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    return Counts(keys[firsts], np.add.reduceat(counts, firsts))


def continuations(counts: Counts, base: int) -> Counts:
    """Each n-gram without its first token, counted once for every different first token."""
    return Counts(*np.unique(counts.keys % base, return_counts=True))


def build_level(counts: Counts, vocab_size: int) -> Level:
    contexts, firsts = np.unique(counts.keys // vocab_size, return_index=True)
    taken = discounts(counts.counts)[np.minimum(counts.counts, 3)]
    starts = np.append(firsts, len(counts.keys)).astype(np.int64)
    if not len(firsts):  # no sentence is as long as this order
        return Level(contexts, starts, *(np.zeros(0, kind) for kind in ("i4", "f4", "f4")))
    totals = np.add.reduceat(counts.counts, firsts)
    shares = (counts.counts - taken) / np.repeat(totals, np.diff(starts))
    backoffs = np.add.reduceat(taken, firsts) / totals
    tokens = (counts.keys % vocab_size).astype(np.int32)
    return Level(contexts, starts, tokens, shares.astype(np.float32), backoffs.astype(np.float32))


def build_unigram(counts: Counts, vocab_size: int) -> Array:
    """(V,) float32, the end of a sentence at 0 and nothing at the unknown token."""
    taken = discounts(counts.counts)[np.minimum(counts.counts, 3)]
    total = counts.counts.sum()
    unigram = np.full(vocab_size, taken.sum() / total / (vocab_size - 1))
    unigram[UNKNOWN_ID] = 0
    unigram[counts.keys] += (counts.counts - taken) / total
    return unigram.astype(np.float32)


def discounts(counts: Array) -> Array:
    """(4,): 0, D1, D2, D3+ from how many n-grams were seen 1, 2, 3 and 4 times (eq. 26)."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    found = FALLBACK_DISCOUNTS
    if n1 and n2 and n3 and n4:
        share = n1 / (n1 + 2 * n2)
        ratios = n2 / n1, n3 / n2, n4 / n3
        first, second, third = (
            times - (times + 1) * share * ratio
            for times, ratio in zip((1, 2, 3), ratios, strict=True)
        )
        if min(first, second, third) > 0:
            found = first, second, third
    return np.array([0.0, *found])
