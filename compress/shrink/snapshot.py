"""A student and its optimiser as they were, and the way back to them in place.

Parameters stay the same objects, so the optimiser, hooks and whoever else points at them go on;
shapes may become wider again, and encoder layers that were dropped come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from compress.models.config import TransducerConfig
from compress.models.transducer import Transducer, outline

Snapshot = dict[str, Any]  # tensors, numbers, strings, lists and dicts: safe to load


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> Snapshot:
    """Copies, on the CPU, of everything `restore_` needs: 12 bytes a weight with AdamW.

    The learning rate and other settings of the optimiser are not among it: they follow the step.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        "configs": {
            path: module.config.model_dump()
            for path, module in model.named_modules()
            if isinstance(module, Transducer)
        },
        "widths": {path: widths_of(module) for path, module in model.named_modules()},
        "weights": copied(model.state_dict()),
        "groups": [[names[value] for value in group["params"]] for group in optimizer.param_groups],
        "moments": copied(optimizer.state_dict()["state"]),
    }


def widths_of(module: nn.Module) -> dict[str, Any]:
    """A module's whole numbers: out_features, num_heads, normalized_shape, ..."""
    return {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and is_width(value)
    }


def is_width(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(is_width, value))
    return isinstance(value, int) and not isinstance(value, bool)


def copied(value: Any) -> Any:
    """The same dicts and lists with tensors copied to the CPU, so that training cannot reach it."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(part) for key, part in value.items()}
    if isinstance(value, list):
        return [copied(part) for part in value]
    return value


@torch.no_grad()
def restore_(model: nn.Module, optimizer: torch.optim.Optimizer, earlier: Snapshot) -> None:
    """Put `earlier` back into `model` and `optimizer`; gradients are dropped.

    Whatever was built for the present widths (pruner, evidence) has to be built anew.
    """
    for path, config in earlier["configs"].items():
        refit(cast(Transducer, model.get_submodule(path)), TransducerConfig.model_validate(config))
    for path, module in model.named_modules():
        vars(module).update(earlier["widths"][path])
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        reshape_(parameter, earlier["weights"][name])
    for name, buffer in model.named_buffers():
        if name in earlier["weights"]:
            buffer.copy_(earlier["weights"][name])
    for module in model.modules():
        if isinstance(module, nn.LSTM):
            module.flatten_parameters()
    # The same parameters in the same order as then: moments are stored by place.
    for group, names in zip(optimizer.param_groups, earlier["groups"], strict=True):
        group["params"] = [parameters[name] for name in names]
    optimizer.state.clear()
    settings = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": copied(earlier["moments"]), "param_groups": settings})


def refit(model: Transducer, config: TransducerConfig) -> None:
    """Give `model` the number of layers that `config` has; new ones hold anything."""
    model.config = config
    whole = outline(config)
    device = model.joiner.output.weight.device
    for path, layers in whole.named_modules():
        if isinstance(layers, nn.ModuleList):
            ours = cast(nn.ModuleList, model.get_submodule(path))
            del ours[len(layers) :]
            ours.extend(layer.to_empty(device=device) for layer in layers[len(ours) :])
            ours.train(model.training)


def reshape_(parameter: nn.Parameter, value: Tensor) -> None:
    """`value` becomes the parameter's, whatever shape it had."""
    parameter.grad = None
    # A loss still alive holds an accumulator for gradients of the old shape; autograd forgets it
    # when the type changes, so take one that no weight has in between.
    parameter.data = torch.empty(0, dtype=torch.cfloat, device=parameter.device)
    parameter.data = value.to(parameter.device, copy=True)
