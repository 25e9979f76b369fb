"""Hotwords without a trie: every phrase is compared with the end of the labels at every step."""

from __future__ import annotations


def score_labels(phrases, labels):
    """What the labels earned in all, by the definition of streaming/search/hotwords.py.

    phrases: (tokens, score) with one score for all. The match is the longest beginning of a phrase
    that the labels since the last whole phrase end with.
    """
    total, heard, pending = 0.0, (), 0.0
    for label in labels:
        heard = (*heard, label)
        match = longest(phrases, heard, whole=False)
        found = longest(phrases, match, whole=True) if match else ()
        score = phrases[0][1]
        if found:
            total, heard, pending = total + len(found) * score, (), 0.0
        else:
            pending = len(match) * score
    return total + pending


def longest(phrases, heard, whole):
    """The longest end of `heard` that is a phrase, or the beginning of one."""
    ends = [heard[start:] for start in range(len(heard))]
    for end in ends:
        for tokens, _ in phrases:
            if tokens == end or (not whole and tokens[: len(end)] == end):
                return end
    return ()
