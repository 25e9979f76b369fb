"""How much an encoder layer does, measured while the model is trained.

Block influence (ShortGPT, arXiv 2403.03853):

    influence = 1 - mean over frames of cos(x, layer(x))        0: it changes nothing, 2: it negates

# Letters: B utterances, S encoder frames, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

RECENT = 0.95  # share of the old average that stays at each step: about the last 20 batches count


@dataclass(eq=False)
class Block:
    """One layer: its modules in the order they run, and its number among the dense model's."""

    number: int
    modules: tuple[nn.Module, ...]
    influence: Tensor | None = None
    heard: Tensor | None = None
    handles: list[RemovableHandle] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(value.numel() for module in self.modules for value in module.parameters())

    @property
    def droppable(self) -> bool:
        """The next layer must fit on the one before."""
        first = self.modules[0]
        return not isinstance(first, nn.LSTM) or first.input_size == first.hidden_size

    def listen(self) -> None:
        """Average the influence over recent training steps; evaluation leaves no trace."""

        def hear(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            ours = module is self.modules[0]  # hooks come along when a model is copied
            self.heard = inputs[0].detach() if ours and module.training else None

        def compare(module: nn.Module, inputs: object, output: Tensor) -> None:
            if self.heard is not None:
                self.learn(measure_influence(self.heard, output.detach()))
                self.heard = None

        self.handles = [
            self.modules[0].register_forward_pre_hook(hear),
            self.modules[-1].register_forward_hook(compare),
        ]

    def learn(self, influence: Tensor) -> None:
        if self.influence is not None:
            influence = RECENT * self.influence.to(influence.device) + (1 - RECENT) * influence
        self.influence = influence

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def measure_influence(x: Tensor, y: Tensor) -> Tensor:
    """Input and output (B, S, D) of a layer -> float32 scalar; padding counts as any frame.

    >>> measure_influence(Tensor([[[1.0, 0.0]]]), Tensor([[[0.0, 5.0]]]))
    tensor(1.)
    """
    return 1 - F.cosine_similarity(x.float(), y.float(), dim=-1).mean()
