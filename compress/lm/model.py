"""What every language model over a teacher's tokens can do.

# Letters: B utterances, U labels, N hypotheses, V tokens incl. blank (0) and unknown (1).

Inside, token 0 stands for both ends of a sentence: the first input, and the event that it is
over. A transducer has no such event, so what is handed out is the distribution of the next label
given that there is one: p(k | u) / (1 - p(end | u)) for k >= 2, and NEVER for blank and unknown.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from compress.data.tokenizer import UNKNOWN_ID, Tokenizer
from compress.lm.config import LstmConfig, NgramConfig
from streaming.errors import InputError

BOUNDARY = 0  # of a sentence; blank's id, which no text holds
NO_LABELS = [BOUNDARY, UNKNOWN_ID]
NEVER = -1e4  # log probability of what is no label: finite, so that 0 * NEVER is 0

State = TypeVar("State")


class LanguageModel(ABC, Generic[State]):
    """Log probabilities of the next token, float32, without gradient, also under autocast.

    A state belongs to N hypotheses; `step` gives a new one and leaves the old one as it was.
    """

    kind: ClassVar[str]

    def __init__(self, config: NgramConfig | LstmConfig, tokenizer_sha256: str) -> None:
        self.vocab_size = config.vocab_size
        self.tokenizer_sha256 = tokenizer_sha256

    @abstractmethod
    def log_events(self, targets: Tensor) -> Tensor:
        """targets (B, U) -> (B, U+1, V): row u follows the first u tokens; column 0 is the end."""

    @abstractmethod
    def next_events(self, state: State) -> Tensor:
        """(N, V): what follows what the state has seen; column 0 is the end."""

    @abstractmethod
    def start(self, num: int, device: torch.device | str = "cpu") -> State:
        """The state of `num` hypotheses without labels."""

    @abstractmethod
    def advance(self, state: State, tokens: Tensor) -> State:
        """The state after one more label each: tokens (N,) int64."""

    @abstractmethod
    def select(self, state: State, index: Tensor) -> State:
        """The hypotheses of index (M,) int64, in that order, repeats allowed."""

    @abstractmethod
    def join(self, states: Sequence[State]) -> State:
        """The hypotheses of several states, those of the first before those of the second."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The weights, as they are stored."""

    @torch.no_grad()
    def log_probs(self, targets: Tensor, target_lengths: Tensor) -> Tensor:
        """Distributions of the next label along given ones, as a predictor's forward_sequence.

        targets (B, U) int64 padded with 0, target_lengths (B,) -> (B, U+1, V) float32. Rows
        u > target_lengths are uniform over the labels.
        """
        with torch.autocast(targets.device.type, enabled=False):
            log_probs = labels_only(self.log_events(targets))
        rows = torch.arange(targets.shape[1] + 1, device=targets.device)
        beyond = rows > target_lengths.to(targets.device).unsqueeze(1)
        uniform = labels_only(torch.zeros(self.vocab_size, device=targets.device))
        return torch.where(beyond.unsqueeze(-1), uniform, log_probs)

    @torch.no_grad()
    def first(self, state: State) -> Tensor:
        """(N, V) float32: log distribution of the next label, before a step is taken."""
        events = self.next_events(state)
        with torch.autocast(events.device.type, enabled=False):
            return labels_only(events)

    @torch.no_grad()
    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """Add tokens (N,) to the hypotheses -> log distributions of the next (N, V), state."""
        with torch.autocast(tokens.device.type, enabled=False):
            state = self.advance(state, tokens)
            return self.first(state), state


def labels_only(events: Tensor) -> Tensor:
    """Log probabilities (.., V) of events -> of labels, normalised over ids >= 2."""
    index = torch.tensor(NO_LABELS, device=events.device)
    labels = events.float().index_fill(-1, index, -torch.inf).log_softmax(-1)
    return labels.index_fill(-1, index, NEVER)


def fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 of the tokenizer's file."""
    return hashlib.sha256(tokenizer.model).hexdigest()


def check_tokenizer(lm: LanguageModel, tokenizer: Tokenizer) -> None:
    """Raises InputError when the language model was trained on another model's tokens."""
    if lm.vocab_size != tokenizer.vocab_size:
        raise InputError(
            f"the language model has {lm.vocab_size} tokens, the teacher {tokenizer.vocab_size}: "
            "train it with compress train-lm --tokenizer TEACHER"
        )
    wanted = fingerprint(tokenizer)
    if lm.tokenizer_sha256 != wanted:
        raise InputError(
            f"the language model is over another vocabulary (bpe.model {lm.tokenizer_sha256[:12]}, "
            f"the teacher's is {wanted[:12]}): train it with compress train-lm --tokenizer TEACHER"
        )
