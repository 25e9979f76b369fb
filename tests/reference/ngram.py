"""Kneser-Ney with dictionaries and recursion, one probability at a time."""

from __future__ import annotations

from collections import Counter

BOUNDARY, UNKNOWN = 0, 1


def ngrams(sentences: list[list[int]], length: int) -> Counter[tuple[int, ...]]:
    """How often each n-gram is in the text; 0 stands before and after each sentence."""
    found: Counter[tuple[int, ...]] = Counter()
    for sentence in sentences:
        padded = [BOUNDARY, *sentence, BOUNDARY]
        found.update(
            tuple(padded[start : start + length]) for start in range(len(padded) - length + 1)
        )
    return found


def adjusted(sentences: list[list[int]], length: int, order: int) -> dict[tuple[int, ...], int]:
    """Counts in the text for the highest order and at a sentence's start, else left neighbours."""
    raw = ngrams(sentences, length)
    if length == order:
        return dict(raw)
    neighbours = Counter(ngram[1:] for ngram in ngrams(sentences, length + 1))
    opening = {ngram: times for ngram, times in raw.items() if ngram[0] == BOUNDARY and length > 1}
    return dict(neighbours) | opening


def discounts_of(counts: dict[tuple[int, ...], int]) -> list[float]:
    """Chen and Goodman's D1, D2, D3+; 0.5, 1 and 1.5 where they cannot be estimated."""
    n = [0, *(sum(count == size for count in counts.values()) for size in (1, 2, 3, 4))]
    discounts = [0.5, 1.0, 1.5]
    if all(n[1:]):
        share = n[1] / (n[1] + 2 * n[2])
        estimated = [size - (size + 1) * share * n[size + 1] / n[size] for size in (1, 2, 3)]
        discounts = estimated if min(estimated) > 0 else discounts
    return discounts


class SlowNgram:
    """P(token | context) for contexts of any length."""

    def __init__(self, sentences: list[list[int]], order: int, vocab_size: int) -> None:
        self.order = order
        self.vocab_size = vocab_size
        lengths = range(1, order + 1)
        self.counts = {length: adjusted(sentences, length, order) for length in lengths}
        self.discounts = {length: discounts_of(self.counts[length]) for length in lengths}

    def probability(self, token: int, context: tuple[int, ...]) -> float:
        """context: the tokens before, 0 for the sentence's start; its last order - 1 count."""
        context = context[-(self.order - 1) :]
        if token == UNKNOWN:
            return 0.0
        counts = self.counts[len(context) + 1]
        following = {ngram: times for ngram, times in counts.items() if ngram[:-1] == context}
        shorter = self.probability(token, context[1:]) if context else 1 / (self.vocab_size - 1)
        if not following:
            return shorter
        total = sum(following.values())
        times = following.get((*context, token), 0)
        discounts = self.discounts[len(context) + 1]
        taken = sum(discounts[min(count, 3) - 1] for count in following.values())
        kept = times - discounts[min(times, 3) - 1] if times else 0.0
        return kept / total + taken / total * shorter
