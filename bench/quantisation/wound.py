"""A model that int8 hurts: the same function, with one channel far wider than the others.

Other people's models break in int8 where the inputs of a layer have outliers (icefall 2003): the
range of the widest channel is everybody's. Here one channel behind every norm is made FACTOR times
as large and the columns that read it as much smaller; in fp32 nothing changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from compress.checkpoint import load_model, save_model
from compress.models.encoders.conformer import Attention, Convolution, FeedForward

FACTOR = 64.0


def make_wounded(source: Path, folder: Path) -> Path:
    """A model folder with outliers, made of another."""
    if not (folder / "config.json").exists():
        model, tokenizer = load_model(source)
        for number, (norm, readers) in enumerate(readers_of_norms(model)):
            widen_(norm, readers, number % norm.weight.numel())
        record = json.loads((source / "record.json").read_text())
        save_model(model, folder, tokenizer, record)
    return folder


def readers_of_norms(model: nn.Module) -> Iterator[tuple[nn.LayerNorm, list[nn.Linear]]]:
    """Each norm of a Conformer's layers and the Linear layers that read it."""
    for module in model.modules():
        if isinstance(module, FeedForward):
            yield module.norm, [module.up]
        elif isinstance(module, Attention):
            yield module.norm, [module.query, module.key, module.value]
        elif isinstance(module, Convolution):
            yield module.norm, [module.value, module.gate]


@torch.no_grad()
def widen_(norm: nn.LayerNorm, readers: list[nn.Linear], channel: int) -> None:
    norm.weight[channel] *= FACTOR
    norm.bias[channel] *= FACTOR
    for reader in readers:
        reader.weight[:, channel] /= FACTOR
