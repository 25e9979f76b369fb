"""n-gram language models over a bundle's pieces: what may follow a context of labels.

Letters: V tokens incl. blank, C labels of a context (at most order - 1).

    log P(w | h) = the model's own where it lists hw, else backoff(h) + log P(w | h')
    h' = h without its first label

Inside, the blank's id stands for both ends of a sentence, as no label has it.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from streaming.features import FloatArray
from streaming.search.fusion import NEVER
from streaming.search.token import log_softmax
from streaming.tokens import UNKNOWN

KeyArray = npt.NDArray[np.int64]

MAX_ANSWERS = 4096  # contexts whose distribution is kept; 4 MB of 256 tokens


class Table(NamedTuple):
    """The n-grams of one length: keys (n,) ascending, their tokens the digits in base V.

    log_probs, backoffs (n,) float32 in nats.
    """

    keys: KeyArray
    log_probs: FloatArray
    backoffs: FloatArray


class Events(Protocol):
    """log P of whatever follows a context, the end of the sentence at blank's id."""

    order: int

    def __call__(self, context: tuple[int, ...]) -> FloatArray: ...


class BackoffTables:
    """Events of tables of 1, 2, .. order tokens; that of 1 has all V tokens."""

    def __init__(self, tables: Sequence[Table], vocab_size: int) -> None:
        self.order = len(tables)
        self._tables = tables
        self._vocab_size = vocab_size

    def __call__(self, context: tuple[int, ...]) -> FloatArray:
        """(V,) in nats, of labels and the end."""
        result: FloatArray = self._tables[0].log_probs.copy()
        key, base = 0, 1
        for depth, label in enumerate(context[: -self.order : -1]):  # the last first
            key, base = key + label * base, base * self._vocab_size
            shorter, longer = self._tables[depth], self._tables[depth + 1]
            place = np.searchsorted(shorter.keys, key)
            if place < len(shorter.keys) and shorter.keys[place] == key:
                result += shorter.backoffs[place]
            first = key * self._vocab_size
            start, stop = np.searchsorted(longer.keys, [first, first + self._vocab_size])
            result[longer.keys[start:stop] - first] = longer.log_probs[start:stop]
        return result


class NgramLm:
    """The LanguageModel of a decoder: the end of a sentence divided out, answers kept.

    blank_id and the ids of unknown are no labels.
    """

    def __init__(self, events: Events, symbols: Sequence[str], blank_id: int) -> None:
        self.order = events.order
        self._events = events
        self._boundary = blank_id
        self._no_labels = [i for i, s in enumerate(symbols) if i == blank_id or s == UNKNOWN]
        self._answers: dict[tuple[int, ...], FloatArray] = {}

    def start(self) -> tuple[int, ...]:
        return (self._boundary,)[: self.order - 1]

    def advance(self, context: tuple[int, ...], label: int) -> tuple[int, ...]:
        longer = (*context, label)
        return longer[max(0, len(longer) - self.order + 1) :]

    def next_labels(self, context: tuple[int, ...]) -> FloatArray:
        if context not in self._answers:
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            events = self._events(context)
            events[self._no_labels] = -np.inf
            answer = log_softmax(events)
            answer[self._no_labels] = NEVER
            self._answers[context] = answer
        return self._answers[context]
