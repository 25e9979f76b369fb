"""The layers of a module that are written in their block form (sparse.py has the pattern)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from export.errors import ExportError
from export.sparse import lower_conv1d, lower_linear
from export.sparse_lstm import BlockLstm

LOWERINGS: dict[type[nn.Module], Callable[[Any, int, str], nn.Module]] = {
    nn.Linear: lower_linear,
    nn.Conv1d: lower_conv1d,
    nn.LSTM: BlockLstm,
}


def replace_blocks(module: nn.Module, block_rows: Mapping[str, int]) -> nn.Module:
    """A copy of `module` with the layers named in `block_rows` (path -> G) in their block form.

    A matrix that keeps all its inputs stays as it is. Raises ExportError for a path that does not
    exist, a layer of another kind, and weights without the pattern.
    """
    if not block_rows:
        return module
    module = copy.deepcopy(module).requires_grad_(False)
    modules = dict(module.named_modules())
    for name, group_rows in block_rows.items():
        if name not in modules:
            raise ExportError(f"block_rows names {name!r}, which the model does not have")
        lower = LOWERINGS.get(type(modules[name]))
        if lower is None:
            raise ExportError(f"{name}: a {type(modules[name]).__name__} has no block form")
        parent = module.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], lower(modules[name], group_rows, name))
    return module
