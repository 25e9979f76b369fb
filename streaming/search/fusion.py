"""What has a say beside the model: blank penalty, a language model, hotwords.

Letters: N hypotheses or streams, R rows of logits, V tokens incl. blank.

    p'(blank) = p(blank),   p'(y) = (1 - p(blank)) softmax_y( log p(y) + lm_weight log p_LM(y) )

as in compress/lm/fusion.py: a language model knows nothing of blanks, so theirs stays as it is.
The penalty is taken off blank's logit before that; the temperature is of the confidences alone
(log_prob of a Token), as in sherpa-onnx.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from streaming.features import FloatArray
from streaming.search.hotwords import ROOT, HotwordTrie, Phrases
from streaming.search.token import log_softmax, log_softmax_at

NEVER = -6e4  # log P of what is no label: finite, so that its sums stay numbers
MAX_TRIES = 256  # of streams with hotwords of their own that are kept; others are built again


class LanguageModel(Protocol):
    """Log P of the next label given that there is one; a context is the labels that it sees."""

    def start(self) -> tuple[int, ...]: ...

    def advance(self, context: tuple[int, ...], label: int) -> tuple[int, ...]: ...

    def next_labels(self, context: tuple[int, ...]) -> FloatArray:
        """(V,) in nats; NEVER for blank and unknown."""
        ...


@dataclass(frozen=True)
class FusionState:
    """What hotwords and language model remember of one hypothesis.

    phrases: the stream's own hotwords, beside the recogniser's; node: where it is in their trie;
    context: the last labels, for the language model.
    """

    phrases: Phrases = ()
    node: int = ROOT
    context: tuple[int, ...] = ()


class Fusion:
    """Scores of a bundle's logits with all that has a say; without any, log softmax."""

    def __init__(
        self,
        blank_id: int,
        blank_penalty: float = 0.0,
        temperature: float = 1.0,
        lm: LanguageModel | None = None,
        lm_weight: float = 0.3,
        phrases: Phrases = (),
    ) -> None:
        self.blank_id = blank_id
        self.blank_penalty = blank_penalty
        self.temperature = temperature
        self.lm = lm
        self.lm_weight = lm_weight
        self.phrases = phrases
        self._tries: dict[Phrases, HotwordTrie] = {}
        self._gains: dict[tuple[Phrases, int], FloatArray] = {}

    def start(self, phrases: Phrases = ()) -> FusionState:
        return FusionState(phrases, ROOT, self.lm.start() if self.lm else ())

    def has_say(self, state: FusionState) -> bool:
        """Whether anything but the blank penalty changes the scores of this stream."""
        return bool(self.lm or self.phrases or state.phrases)

    def penalise(self, logits: FloatArray) -> FloatArray:
        """(.., V) with the penalty off blank's; the array that it was given stays as it is."""
        if self.blank_penalty:
            logits = logits.copy()
            logits[..., self.blank_id] -= self.blank_penalty
        return logits

    def scores(
        self, logits: FloatArray, states: Sequence[FusionState], counts: Sequence[int] | int = 1
    ) -> FloatArray:
        """Logits (R, V), counts rows of each of N states -> log P (R, V), hotwords not counted."""
        log_probs = log_softmax(self.penalise(logits))
        if self.lm is None:
            return log_probs
        opinions = np.stack([self.lm.next_labels(state.context) for state in states])
        rows = np.repeat(opinions, counts, axis=0)
        return fuse(log_probs, rows, self.lm_weight, self.blank_id)

    def gains(self, states: Sequence[FusionState], vocab_size: int) -> FloatArray:
        """(N, V): see HotwordTrie.gains."""
        return np.stack([self._gains_at(state, vocab_size) for state in states])

    def follow(self, state: FusionState, label: int) -> tuple[FusionState, float]:
        """The state after a label, and what the label earned in nats."""
        if not self.has_say(state):
            return state, 0.0
        node, earned = self.trie(state.phrases).step(state.node, label)
        context = self.lm.advance(state.context, label) if self.lm else ()
        return replace(state, node=node, context=context), earned

    def confidence(self, logits: FloatArray, label: int) -> float:
        """log P of a label in one frame's logits (V,), by the model alone, at the temperature."""
        if self.temperature != 1.0:
            logits = logits / self.temperature
        return log_softmax_at(logits, label)

    def trie(self, phrases: Phrases) -> HotwordTrie:
        """The trie of the recogniser's hotwords and a stream's own."""
        if phrases not in self._tries:
            if len(self._tries) >= MAX_TRIES:
                self._tries.clear()
                self._gains.clear()
            self._tries[phrases] = HotwordTrie(self.phrases + phrases)
        return self._tries[phrases]

    def _gains_at(self, state: FusionState, vocab_size: int) -> FloatArray:
        key = (state.phrases, state.node)
        if key not in self._gains:
            if len(self._gains) >= 1000:
                self._gains.clear()
            self._gains[key] = self.trie(state.phrases).gains(state.node, vocab_size)
        return self._gains[key]


def fuse(
    log_probs: FloatArray, lm_log_probs: FloatArray, lm_weight: float, blank_id: int
) -> FloatArray:
    """log P of two (R, V), normalised -> (R, V)."""
    log_blank = log_probs[:, blank_id].copy()
    labels = log_probs + lm_weight * lm_log_probs
    labels[:, blank_id] = -np.inf
    not_blank = log_probs.copy()
    not_blank[:, blank_id] = -np.inf
    peaks = not_blank.max(axis=1, keepdims=True)
    mass = peaks + np.log(np.exp(not_blank - peaks).sum(axis=1, keepdims=True))
    fused: FloatArray = log_softmax(labels) + mass
    fused[:, blank_id] = log_blank
    return fused
