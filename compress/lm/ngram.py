"""An n-gram language model: tables on disk, distributions of many contexts at once.

# Letters: N contexts, V tokens incl. blank, R contexts and C continuations of one level.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from compress.data.tokenizer import UNKNOWN_ID
from compress.lm.config import NgramConfig
from compress.lm.kneser_ney import Level, check_order, estimate
from compress.lm.model import BOUNDARY, LanguageModel
from streaming.errors import InputError

NOTHING = -1  # in a context, before the sentence's start
DTYPES = {
    "contexts": torch.int64,
    "starts": torch.int64,
    "tokens": torch.int32,
    "shares": torch.float32,
    "backoffs": torch.float32,
}


class NgramModel(LanguageModel[Tensor]):
    """Looks distributions up on the CPU; a state is the last order - 1 tokens, (N, order - 1)."""

    kind = "ngram"

    def __init__(
        self,
        config: NgramConfig,
        unigram: np.ndarray,
        levels: list[Level],
        tokenizer_sha256: str,
    ) -> None:
        super().__init__(config, tokenizer_sha256)
        self.config = config
        self.unigram = unigram
        self.levels = levels

    @classmethod
    def train(
        cls, chunks: Iterable[np.ndarray], config: NgramConfig, tokenizer_sha256: str
    ) -> NgramModel:
        """Count and discount; chunks as in kneser_ney.estimate."""
        check_order(config.order, config.vocab_size)
        unigram, levels = estimate(chunks, config.order, config.vocab_size)
        return cls(config, unigram, levels, tokenizer_sha256)

    @property
    def num_ngrams(self) -> int:
        return len(self.unigram) + sum(len(level.tokens) for level in self.levels)

    def probabilities(self, contexts: np.ndarray) -> np.ndarray:
        """contexts (N, order - 1) int64, NOTHING where there is no token -> (N, V) float32."""
        result = np.tile(self.unigram, (len(contexts), 1))
        rows = np.arange(len(contexts))  # whose shorter context was found
        keys = np.zeros(len(contexts), np.int64)
        for depth, level in enumerate(self.levels):
            token = contexts[rows, -1 - depth]
            rows, keys, token = (part[token >= 0] for part in (rows, keys, token))
            keys = keys + token * self.vocab_size**depth
            places = np.searchsorted(level.contexts, keys)
            found = places < len(level.contexts)
            found[found] = level.contexts[places[found]] == keys[found]
            rows, keys, places = (part[found] for part in (rows, keys, places))
            result[rows] *= level.backoffs[places, None]
            firsts, lengths = level.starts[places], np.diff(level.starts)[places]
            offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            cells = np.repeat(firsts, lengths) + offsets
            result[np.repeat(rows, lengths), level.tokens[cells]] += level.shares[cells]
        return result

    def log_events(self, targets: Tensor) -> Tensor:
        state = self.start(len(targets)).to(targets.device)
        seen = torch.cat([state, targets], dim=1).unfold(1, self.config.order - 1, 1)
        return self.next_events(seen.flatten(0, 1)).view(*seen.shape[:2], self.vocab_size)

    def next_events(self, state: Tensor) -> Tensor:
        probabilities = torch.from_numpy(self.probabilities(state.cpu().numpy()))
        return probabilities.log().to(state.device)

    def start(self, num: int, device: torch.device | str = "cpu") -> Tensor:
        state = torch.full((num, self.config.order - 1), NOTHING, device=device)
        state[:, -1] = BOUNDARY
        return state

    def advance(self, state: Tensor, tokens: Tensor) -> Tensor:
        return torch.cat([state[:, 1:], tokens.unsqueeze(1)], dim=1)

    def select(self, state: Tensor, index: Tensor) -> Tensor:
        return state[index]

    def join(self, states: Sequence[Tensor]) -> Tensor:
        return torch.cat([*states])

    def tensors(self) -> dict[str, Tensor]:
        tables = {"unigram": torch.from_numpy(self.unigram)}
        for length, level in enumerate(self.levels, start=2):
            parts = level._asdict().items()
            tables |= {f"{length}.{name}": torch.from_numpy(part) for name, part in parts}
        return tables

    @classmethod
    def from_tensors(
        cls, config: NgramConfig, tensors: dict[str, Tensor], tokenizer_sha256: str, origin: str
    ) -> NgramModel:
        """Raises InputError, naming `origin`, for tables that no training writes."""
        check_order(config.order, config.vocab_size)
        lengths = range(2, config.order + 1)
        wanted = {f"{length}.{name}": kind for length in lengths for name, kind in DTYPES.items()}
        wanted["unigram"] = torch.float32
        for name in sorted(wanted.keys() | tensors.keys()):
            if name not in wanted or name not in tensors:
                raise InputError(f"{origin} is of another model: {name} is in only one of the two")
            if tensors[name].dtype != wanted[name] or tensors[name].ndim != 1:
                raise InputError(f"{origin}: {name} is no list of {wanted[name]}: train it again")
        unigram = tensors["unigram"].numpy()
        levels = [
            Level(*(tensors[f"{length}.{name}"].numpy() for name in DTYPES)) for length in lengths
        ]
        if not is_sound_unigram(unigram, config.vocab_size):
            raise InputError(f"{origin}: unigram is no distribution: train it again")
        for length, level in zip(lengths, levels, strict=True):
            if not is_sound(level, config.vocab_size, length):
                raise InputError(f"{origin}: the table of order {length} is spoilt: train it again")
        return cls(config, unigram, levels, tokenizer_sha256)


def is_sound_unigram(unigram: np.ndarray, vocab_size: int) -> bool:
    """Positive but for the unknown token, and adding up to one; NaN fails each comparison."""
    if unigram.shape != (vocab_size,) or unigram[UNKNOWN_ID] != 0:
        return False
    positive = np.delete(unigram, UNKNOWN_ID) > 0
    return bool(positive.all() and abs(unigram.sum(dtype=np.float64) - 1) < 1e-4)


def is_sound(level: Level, vocab_size: int, length: int) -> bool:
    """Every lookup stays inside the tables, and every context's distribution adds up to one."""
    contexts, starts, tokens, shares, backoffs = level
    sizes = len(starts) == len(contexts) + 1 == len(backoffs) + 1 and len(tokens) == len(shares)
    if not sizes or starts[0] != 0 or starts[-1] != len(tokens):
        return False
    if not len(contexts):
        return True
    ordered = (np.diff(starts) > 0).all() and (np.diff(contexts) > 0).all()
    inside = contexts[0] >= 0 and contexts[-1] < vocab_size ** (length - 1)
    labels = (tokens >= 0).all() and (tokens < vocab_size).all() and (tokens != UNKNOWN_ID).all()
    if not (ordered and inside and labels):
        return False
    inner = np.ones(max(0, len(tokens) - 1), bool)
    inner[starts[1:-1] - 1] = False
    once = (np.diff(tokens)[inner] > 0).all()
    positive = (shares > 0).all() and (backoffs > 0).all()
    sums = np.add.reduceat(shares.astype(np.float64), starts[:-1]) + backoffs
    return bool(once and positive and (np.abs(sums - 1) < 1e-4).all())
