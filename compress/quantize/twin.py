"""A student as onnxruntime will compute it: the same modules, their weights rounded on the way.

The student stays an ordinary network; its names, masks and files know nothing of rounding. Its
twin holds, in place of each weight, what form qat makes of it (rounding.py), with a gradient to the
student's own, and rounds what its Linear layers read.

    Linear        rows and input; the bias too where export writes a Gemm: inputs (N, K)
    LSTM          rows; what it reads by the range of every call (lstm.py)
    Embedding     table
    Conv1d        half
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from compress.models.transducer import Transducer
from compress.quantize.lstm import RoundedLstm
from compress.quantize.ranges import InputRanges, linear_layers
from compress.quantize.rounding import (
    input_grid,
    round_gemm,
    round_half,
    round_input,
    round_rows,
    round_table,
    round_tanh,
)
from compress.shrink.layouts import Block, parse_layout


class Twin:
    """`model` computes with the roundings of `student` and `ranges` after each refresh()."""

    def __init__(self, student: Transducer, ranges: InputRanges) -> None:
        self.student = student
        self.ranges = ranges
        self.model = deepcopy(student)
        replace_lstms_(self.model)
        for name, parameter in student.named_parameters():
            place(self.model, name, parameter)
        for name, layer in linear_layers(self.model).items():
            layer.register_forward_pre_hook(partial(_round_arguments, name, ranges))
        self.model.joiner.output.rounding = round_tanh  # type: ignore[assignment]
        self.refresh()

    def refresh(self) -> Transducer:
        """Rounds the student's weights as they are now."""
        self.model.train(self.student.training)
        for name, rounded in round_weights(self.student, self.ranges):
            place(self.model, name, rounded)
        return self.model

    @torch.no_grad()
    def freeze(self) -> Transducer:
        """A copy that learns no more, its rounded weights ordinary parameters, to be measured."""
        model = deepcopy(self.refresh())
        for name, _ in self.student.named_parameters():
            path, _, leaf = name.rpartition(".")
            value = getattr(model.get_submodule(path), leaf).detach()
            place(model, name, nn.Parameter(value, requires_grad=False))
        return model.eval()


def place(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Puts a parameter, or a tensor that depends on one, in the place of parameter `name`."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    delattr(module, leaf)
    setattr(module, leaf, tensor)


def replace_lstms_(model: Transducer) -> None:
    """An LSTM of the encoder is called chunk by chunk, the predictor's label by label."""
    for name, module in model.named_modules():
        if isinstance(module, nn.LSTM):
            module.__class__ = RoundedLstm
            encoder = model.encoder if name.startswith("encoder.") else None
            module.chunk = encoder.chunk_frames // encoder.subsampling if encoder else 1


def _round_arguments(
    name: str, ranges: InputRanges, module: nn.Module, arguments: tuple[Tensor]
) -> Tensor:
    (x,) = arguments
    return round_input(x, *ranges(name, x.numel()))


def round_weights(model: Transducer, ranges: InputRanges) -> Iterator[tuple[str, Tensor]]:
    """The parameters that a bundle does not hold as they are: names and rounded tensors."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and has_rounded_bias(model, name):
            weight, bias = round_gemm(module.weight, module.bias, input_step(ranges, name))
            yield f"{name}.weight", weight
            yield f"{name}.bias", bias
        elif isinstance(module, nn.Linear):
            yield f"{name}.weight", round_rows(module.weight)
        elif isinstance(module, nn.Embedding):
            yield f"{name}.weight", round_table(module.weight)
        elif isinstance(module, nn.Conv1d):
            yield f"{name}.weight", round_half(module.weight)
        elif isinstance(module, nn.LSTM):
            for part, weight in module.named_parameters():
                if weight.ndim > 1:
                    yield f"{name}.{part}", round_rows(weight)


def has_rounded_bias(model: Transducer, name: str) -> bool:
    """Whether export writes a Gemm: for inputs (N, K), which all but the encoder have, and no
    blocks but those of one group."""
    layout = parse_layout(model.config.sparse.get(name, "unstructured"))
    in_groups = isinstance(layout, Block) and layout.rows < linear_layers(model)[name].out_features
    return not name.startswith("encoder.") and not in_groups


@torch.no_grad()
def input_step(ranges: InputRanges, name: str) -> Tensor:
    """The scale of what a layer reads."""
    return input_grid(*ranges(name, 1))[0]
