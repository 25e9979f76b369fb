"""A small LSTM language model.

# Letters: B sentences, U labels, N hypotheses, V tokens incl. blank, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.data.tokenizer import UNKNOWN_ID
from compress.lm.config import LstmConfig
from compress.lm.model import BOUNDARY, NEVER, LanguageModel
from streaming.errors import InputError


class LstmState(NamedTuple):
    """h and c of every layer, each (layers, N, D)."""

    h: Tensor
    c: Tensor


class LstmNetwork(nn.Module):
    """Embedding -> LSTM -> the embedding again as output matrix (arXiv 1608.05859)."""

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        self.lstm = nn.LSTM(config.width, config.width, config.layers, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, U), a sentence's boundary first -> log events (B, U, V)."""
        return self.output(self.dropout(self.lstm(self.dropout(self.embedding(tokens)))[0]))

    def output(self, hidden: Tensor) -> Tensor:
        """hidden (.., D) -> log probabilities (.., V); none for the unknown token."""
        logits = F.linear(hidden, self.embedding.weight, self.bias)
        unknown = torch.tensor([UNKNOWN_ID], device=logits.device)
        return logits.index_fill(-1, unknown, NEVER).log_softmax(-1)

    def advance(self, tokens: Tensor, state: LstmState | None) -> LstmState:
        """tokens (N,) -> the state after them; None is the zero state."""
        _, state = self.lstm(self.embedding(tokens.unsqueeze(1)), state)
        return LstmState(*state)


class LstmModel(LanguageModel[LstmState]):
    """The network, frozen, on whatever device the tokens are."""

    kind = "lstm"

    def __init__(self, config: LstmConfig, network: LstmNetwork, tokenizer_sha256: str) -> None:
        super().__init__(config, tokenizer_sha256)
        self.config = config
        self.network = network.eval()

    def log_events(self, targets: Tensor) -> Tensor:
        return self.network.to(targets.device)(F.pad(targets, (1, 0), value=BOUNDARY))

    def next_events(self, state: LstmState) -> Tensor:
        return self.network.output(state.h[-1])

    @torch.no_grad()
    def start(self, num: int, device: torch.device | str = "cpu") -> LstmState:
        boundary = torch.full((num,), BOUNDARY, device=device)
        with torch.autocast(boundary.device.type, enabled=False):
            return self.network.to(device).advance(boundary, None)

    def advance(self, state: LstmState, tokens: Tensor) -> LstmState:
        return self.network.advance(tokens, state)

    def select(self, state: LstmState, index: Tensor) -> LstmState:
        return LstmState(state.h[:, index], state.c[:, index])

    def join(self, states: Sequence[LstmState]) -> LstmState:
        return LstmState(*(torch.cat(parts, 1) for parts in zip(*states, strict=True)))

    def tensors(self) -> dict[str, Tensor]:
        return {name: part.detach().cpu() for name, part in self.network.state_dict().items()}

    @classmethod
    def from_tensors(
        cls, config: LstmConfig, tensors: dict[str, Tensor], tokenizer_sha256: str, origin: str
    ) -> LstmModel:
        """Raises InputError, naming `origin`, for weights that do not fit or are not finite."""
        network = LstmNetwork(config)
        wanted = network.state_dict()
        for name in sorted(wanted.keys() | tensors.keys()):
            if name not in wanted or name not in tensors:
                raise InputError(f"{origin} is of another model: {name} is in only one of the two")
            found = tensors[name]
            if found.shape != wanted[name].shape or found.dtype != wanted[name].dtype:
                raise InputError(
                    f"{origin}: {name} is {found.dtype} {tuple(found.shape)}, config.json wants "
                    f"{wanted[name].dtype} {tuple(wanted[name].shape)}: train it again"
                )
            if not torch.isfinite(found).all():
                raise InputError(f"{origin}: {name} holds NaN or infinity: train it again")
        network.load_state_dict(tensors)
        return cls(config, network, tokenizer_sha256)
