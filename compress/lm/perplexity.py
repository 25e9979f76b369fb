"""How well a language model foresees held-out sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from compress.lm.corpus import Corpus, Sentences
from compress.lm.model import BOUNDARY, LanguageModel

MAX_SENTENCES = 20_000
BATCH_CELLS = 4_000_000  # of a batch's (B, U+1, V) float32


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean nats an event; the end of a sentence counts as a token and as a word."""

    per_token: float
    per_word: float
    sentences: int
    tokens: int
    words: int


def judge(lm: LanguageModel, corpus: Corpus) -> dict[str, Perplexity]:
    """Held-out sentences, all of them and those that training never saw (if there are any)."""
    indices = corpus.held_out.sample(MAX_SENTENCES)
    nats = np.array(list(sentence_nats(lm, corpus.held_out, indices)))
    unseen = ~seen_in(corpus.train, corpus.held_out.records["text"][indices])
    judged = {"held_out": perplexity(corpus.held_out, indices, nats)}
    if unseen.any():
        judged["unseen"] = perplexity(corpus.held_out, indices[unseen], nats[unseen])
    return judged


def perplexity(sentences: Sentences, indices: np.ndarray, nats: np.ndarray) -> Perplexity:
    """nats (num,): -log probability of each of the sentences, its end included."""
    tokens = sum(len(sentences.span(index)) - 2 for index in indices)
    words = int(sentences.records["words"][indices].sum())
    return Perplexity(
        per_token=round(math.exp(nats.sum() / (tokens + len(indices))), 3),
        per_word=round(math.exp(nats.sum() / (words + len(indices))), 3),
        sentences=len(indices),
        tokens=tokens,
        words=words,
    )


@torch.no_grad()
def sentence_nats(lm: LanguageModel, sentences: Sentences, indices: np.ndarray) -> Iterator[float]:
    """-log P(sentence, end) of each, in batches of a bounded size."""
    waiting: list[np.ndarray] = []
    longest = 0
    for index in indices:
        span = sentences.span(index)
        longest = max(longest, len(span))
        if waiting and longest * (len(waiting) + 1) * lm.vocab_size > BATCH_CELLS:
            yield from batch_nats(lm, waiting)
            waiting, longest = [], len(span)
        waiting.append(span)
    yield from batch_nats(lm, waiting)


def batch_nats(lm: LanguageModel, spans: list[np.ndarray]) -> list[float]:
    padded = np.full((len(spans), max(map(len, spans)) - 1), BOUNDARY, np.int64)
    for row, span in zip(padded, spans, strict=True):
        row[: len(span) - 1] = span[1:]
    events = torch.from_numpy(padded)
    log_probs = lm.log_events(events[:, :-1]).gather(-1, events.unsqueeze(-1)).squeeze(-1)
    lengths = torch.tensor([len(span) - 1 for span in spans]).unsqueeze(1)
    inside = torch.arange(padded.shape[1]) < lengths
    return (-(log_probs.double() * inside).sum(1)).tolist()


def seen_in(train: Sentences, texts: np.ndarray) -> np.ndarray:
    """Which of the texts (hashes) training holds, a million sentences at a time."""
    seen = np.zeros(len(texts), bool)
    for start in range(0, len(train), 1_000_000):
        seen |= np.isin(texts, train.records["text"][start : start + 1_000_000])
    return seen
