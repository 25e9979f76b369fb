"""Whole encoder layers go, one after another, while the student learns.

The layer of the least influence (influence.py) is missed least. Where nothing was measured, and
between equals, every second layer goes, from the middle outwards (LayerDrop, arXiv 1909.11556).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from compress.models.config import ConformerConfig, TransducerConfig
from compress.models.transducer import Transducer, outline
from compress.shrink.channel import Kept
from compress.shrink.influence import Block
from compress.shrink.schedule import check_sparsity
from streaming.errors import InputError

ORDERS = ("influence", "every-second")


def every_second(number: int, num_layers: int) -> tuple[bool, int]:
    """Sorts layers by when they go: each other one, then the rest, from the middle outwards.

    >>> sorted(range(6), key=lambda number: every_second(number, 6))
    [3, 1, 5, 2, 4, 0]
    """
    distance = abs(number - num_layers // 2)
    return distance % 2 == 1, distance


class LayerPruner:
    """Drops layers of the encoder of `model` in place, as few as a sparsity asks for.

    dense: the model before any pruning, when `model` was pruned already. order: "influence", or
    "every-second" without looking. An LSTM layer can go where its input and output are equally
    wide; one layer stays. Names of the layers behind a dropped one change.
    """

    def __init__(
        self, model: Transducer, dense: TransducerConfig | None = None, order: str = "influence"
    ) -> None:
        if order not in ORDERS:
            raise InputError(f"no order of layers {order!r}: choose one of {', '.join(ORDERS)}")
        self.model = model
        whole = outline(dense or model.config)
        self.num_parameters_dense = whole.num_parameters
        self.num_layers_dense = len(whole.encoder.layers)
        self.blocks = [Block(i, modules) for i, modules in enumerate(find_layers(model))]
        if order == "influence":
            for block in self.droppable:
                block.listen()

    @property
    def sparsity(self) -> float:
        return 1 - self.model.num_parameters / self.num_parameters_dense

    @property
    def droppable(self) -> list[Block]:
        return [block for block in self.blocks if block.droppable]

    @property
    def max_sparsity(self) -> float:
        """Everything that can go is gone; of equal layers one is left."""
        most = min(len(self.droppable), len(self.blocks) - 1)
        gone = sum(sorted((block.size for block in self.droppable), reverse=True)[:most])
        return 1 - (self.model.num_parameters - gone) / self.num_parameters_dense

    def check(self, sparsity: float) -> None:
        """Raises InputError for a sparsity that no number of layers reaches."""
        if check_sparsity(sparsity) <= self.max_sparsity + 1e-12:
            return
        if not self.droppable:
            why = "no layer of this encoder has an output as wide as its input"
        else:
            stay = max(1, len(self.blocks) - len(self.droppable))
            why = f"{stay} of {self.num_layers_dense} encoder layers must stay, and all around them"
        raise InputError(
            f"pattern layers cannot reach sparsity {sparsity:g}: {why}; the most is "
            f"{int(self.max_sparsity * 1e4) / 1e4:g}: ask for less, or take pattern channel"
        )

    def plan(self, sparsity: float) -> list[Block]:
        """The layers that `prune_to` would drop; nothing is changed."""
        self.check(sparsity)
        # The millionth keeps max_sparsity itself reachable: (1 - s) n is 6.9999999 for 7 values.
        budget = int((1 - sparsity) * self.num_parameters_dense + 1e-6)
        return choose_blocks(self.ranked(), self.model.num_parameters - budget)

    def ranked(self) -> list[Block]:
        """Droppable layers, the one that is missed least first."""
        blocks = self.droppable
        measured = all(block.influence is not None for block in blocks)

        def missed(block: Block) -> tuple[float, bool, int]:
            influence = float(block.influence) if measured and block.influence is not None else 0.0
            return influence, *every_second(block.number, self.num_layers_dense)

        return sorted(blocks, key=missed)

    def prune_to(self, sparsity: float, optimizer: torch.optim.Optimizer | None = None) -> Kept:
        """Drop layers until num_parameters <= (1 - sparsity) * the dense model's.

        Sparsity moves in steps of a layer. No parameter changes its shape: the result is empty.
        Dropped parameters leave `optimizer`, the others keep their moments and their order.
        """
        dropped = self.plan(sparsity)
        if dropped:
            kept = [place for place, block in enumerate(self.blocks) if block not in dropped]
            keep_layers(self.model, kept)
            self.blocks = [self.blocks[place] for place in kept]
            for block in dropped:
                block.close()
                if optimizer:
                    forget(optimizer, block.modules)
        return {}

    def after_step(self) -> None:
        """Nothing: what is gone cannot come back."""

    def state(self) -> dict[str, Any]:
        """Which layers are left and how they are rated, for a resumed run to drop the same."""
        return {
            "layers": [block.number for block in self.blocks],
            "influence": [
                None if block.influence is None else float(block.influence) for block in self.blocks
            ],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        rows = zip(self.blocks, state["layers"], state["influence"], strict=True)
        for block, number, influence in rows:
            block.number = number
            block.influence = None if influence is None else torch.tensor(influence)


def find_layers(model: Transducer) -> list[tuple[nn.Module, ...]]:
    """The modules of each encoder layer, in the order they run."""
    encoder: Any = model.encoder
    if isinstance(model.config.encoder, ConformerConfig):
        return [(layer,) for layer in encoder.layers]
    return list(zip(encoder.layers, encoder.norms, strict=True))


def choose_blocks(ranked: Sequence[Block], excess: int) -> list[Block]:
    """The fewest layers with at least `excess` values; of these choices, the first in `ranked`.

    Sizes 3, 5, 4 in this order and an excess of 8: two must go, and 3 goes with 5.
    """
    chosen: list[Block] = []
    left = list(ranked)
    while excess > 0:
        sizes = sorted((block.size for block in left), reverse=True)
        others = next(n for n in range(len(sizes)) if sum(sizes[: n + 1]) >= excess)
        chosen.append(next(b for b in left if b.size + largest(left, b, others) >= excess))
        left.remove(chosen[-1])
        excess -= chosen[-1].size
    return chosen


def largest(blocks: Sequence[Block], without: Block, count: int) -> int:
    """Values of the `count` largest blocks but one."""
    return sum(sorted((b.size for b in blocks if b is not without), reverse=True)[:count])


def keep_layers(model: Transducer, kept: Sequence[int]) -> None:
    """Leave these encoder layers, by their present place, and say so in the configuration."""
    encoder: Any = model.encoder
    config = model.config.encoder
    encoder.layers = nn.ModuleList(encoder.layers[place] for place in kept)
    if isinstance(config, ConformerConfig):
        update: dict[str, Any] = {"layers": [config.layers[place] for place in kept]}
    else:
        encoder.norms = nn.ModuleList(encoder.norms[place] for place in kept)
        update = {"hidden": [config.hidden[place] for place in kept]}
    changes = {
        "encoder": config.model_copy(update=update),
        "sparse": rename_layers(model.config.sparse, kept),
    }
    model.config = model.config.model_copy(update=changes)


def rename_layers(sparse: Mapping[str, str], kept: Sequence[int]) -> dict[str, str]:
    """Module paths after dropping; those of dropped layers go.

    >>> rename_layers({"encoder.layers.2.norm": "2:4", "encoder.layers.1": "2:4"}, [0, 2])
    {'encoder.layers.1.norm': '2:4'}
    """
    renamed = {}
    for name, pattern in sparse.items():
        parts = name.split(".")
        if parts[:2] == ["encoder", "layers"]:
            if int(parts[2]) not in kept:
                continue
            parts[2] = str(kept.index(int(parts[2])))
        renamed[".".join(parts)] = pattern
    return renamed


def forget(optimizer: torch.optim.Optimizer, modules: Sequence[nn.Module]) -> None:
    """Take the parameters of `modules` out of the optimiser, as if it never had them."""
    gone = {id(parameter) for module in modules for parameter in module.parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) in gone:
                optimizer.state.pop(parameter, None)
        group["params"] = [value for value in group["params"] if id(value) not in gone]
