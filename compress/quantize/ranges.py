"""The ranges of what Linear layers read: observed on a few batches, then learned.

    low = observed low * exp(a)        high = observed high * exp(b)

a and b begin at 0 and are what is trained: a range of 0.5 and one of 50 then move alike, and an end
never changes sign (TQT, arXiv 1903.08066, learns log2 of a symmetric range for the same reasons).
Layers that read the same tensor share a range, so that the device rounds it once: query, key and
value of an attention; value and gate of a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from compress.data.batches import Batch
from compress.models.transducer import Transducer

JOINER = "joiner.output"
TANH = (-1.0, 1.0)  # what the joiner reads cannot leave it
RATE_SHARE = 10.0  # of the weights' learning rate: a range must be able to halve in 100 steps
Range = tuple[float, float]


def linear_layers(model: Transducer) -> dict[str, nn.Linear]:
    """The layers whose inputs get a range: all of them, by their names in the state dict."""
    modules = model.named_modules()
    return {name: module for name, module in modules if isinstance(module, nn.Linear)}


class InputRanges(nn.Module):
    """layer -> low and high, float32 scalars with a gradient."""

    ends: Tensor

    def __init__(self, observed: Mapping[str, Range], shared: Mapping[str, str]) -> None:
        """observed: of every layer, the joiner's excepted, which is TANH and is not trained.
        shared: layer -> the layer whose range it has, where that is another."""
        super().__init__()
        self.rate_share = RATE_SHARE
        self.shared = dict(shared)
        names = [name for name in observed if name not in shared]
        self.rows = {name: row for row, name in enumerate(names)}
        ends = [_union(observed, name, shared) for name in names]
        self.register_buffer("ends", torch.tensor(ends, dtype=torch.float32).reshape(-1, 2))
        self.low_gains = nn.Parameter(torch.zeros(len(names)))
        self.high_gains = nn.Parameter(torch.zeros(len(names)))

    def forward(self, layer: str, num_values: int) -> tuple[Tensor, Tensor]:
        """The ends for an input of `num_values` numbers.

        Every number pulls at the ends: their gradient is divided by sqrt(num_values * 255), as
        LSQ does (1902.08153), else it alone would fill the norm that gradients are clipped to.
        """
        if layer == JOINER:
            return self.ends.new_tensor(TANH[0]), self.ends.new_tensor(TANH[1])
        row = self.rows[self.shared.get(layer, layer)]
        share = 1 / math.sqrt(max(1, num_values) * 255)
        low, high = self.ends[row]
        return (
            low * _slow(self.low_gains[row], share).exp(),
            high * _slow(self.high_gains[row], share).exp(),
        )

    @torch.no_grad()
    def learned(self) -> dict[str, Range]:
        """layer -> low and high, of all layers, as a bundle takes them."""
        layers = [*self.rows, *self.shared, JOINER]
        found = {layer: self(layer, 1) for layer in layers}
        return {layer: (float(low), float(high)) for layer, (low, high) in sorted(found.items())}


def _union(observed: Mapping[str, Range], name: str, shared: Mapping[str, str]) -> Range:
    """Of a layer and of those that have its range, with 0 in it."""
    found = [observed[name], *(observed[layer] for layer, owner in shared.items() if owner == name)]
    return min(0.0, *(low for low, _ in found)), max(0.0, *(high for _, high in found))


def _slow(gain: Tensor, share: float) -> Tensor:
    """`gain`, to the bit, with `share` of its gradient."""
    return gain.detach() + share * (gain - gain.detach())


@torch.no_grad()
def observe_inputs(model: Transducer, batches: Iterable[Batch]) -> InputRanges:
    """Ranges from the smallest and largest values that the layers of `model` read.

    Percentiles were tried for ranges that stay as they are (decision 23) and gain nothing there.
    """
    observed: dict[str, Range] = {}
    inputs: dict[str, Tensor] = {}

    def see(name: str, module: nn.Module, arguments: tuple[Tensor]) -> None:
        inputs[name] = arguments[0]
        low, high = (float(end) for end in arguments[0].aminmax())
        before = observed.get(name, (low, high))
        observed[name] = min(low, before[0]), max(high, before[1])

    layers = linear_layers(model).items()
    hooks = [layer.register_forward_pre_hook(partial(see, name)) for name, layer in layers]
    for batch in batches:
        inputs.clear()
        model.encoder(batch.features, batch.feature_lengths)
        model.predictor.forward_sequence(batch.targets)
    for hook in hooks:
        hook.remove()
    return InputRanges(observed, find_shared(inputs))


def find_shared(inputs: Mapping[str, Tensor]) -> dict[str, str]:
    """layer -> the first layer that was given the same tensor."""
    first: dict[int, str] = {}
    owners = {name: first.setdefault(id(tensor), name) for name, tensor in inputs.items()}
    return {name: owner for name, owner in owners.items() if owner != name}
