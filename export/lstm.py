"""nn.LSTM as one ONNX LSTM node a layer, its weights already in ONNX's order.

# Letters: T frames, N streams, I input width, H hidden.

torch 2.11 traces nn.LSTM's last state with one axis too many when N is free, and leaves Slice and
Concat on the weights, which hides them from the quantiser. So the module is replaced before tracing
by one that calls the operator export::lstm, and this file says what that operator is in ONNX.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor, nn

from export.errors import ExportError

op: Any = opset18


@torch.library.custom_op("export::lstm", mutates_args=())
def lstm(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x (T, N, I), h and c (1, N, H) -> every h (T, N, H), last h, last c.

    Gates in ONNX's order i, o, f, c~:  w (1, 4H, I), r (1, 4H, H), b (1, 8H).
    """
    bias = b[0].view(2, -1).sum(0)
    outputs = []
    h, c = h[0], c[0]
    for frame in x:
        gates = frame @ w[0].T + h @ r[0].T + bias
        i, o, f, candidate = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * candidate.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs), h[None].clone(), c[None]


@lstm.register_fake
def _(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape[0], *h.shape[1:]), torch.empty_like(h), torch.empty_like(c)


def translate_lstm(x: Any, w: Any, r: Any, b: Any, h: Any, c: Any) -> Any:
    """export::lstm in ONNX."""
    every, h, c = op.LSTM(x, w, r, b, None, h, c, hidden_size=w.shape[1] // 4)
    return op.Squeeze(every, op.Constant(value_ints=[1])), h, c


TRANSLATIONS: dict[Any, Any] = {torch.ops.export.lstm.default: translate_lstm}


class LstmExport(nn.Module):
    """Takes the place of a one-directional nn.LSTM, with the same weight names."""

    def __init__(self, source: nn.LSTM) -> None:
        super().__init__()
        if source.bidirectional or source.proj_size or not source.bias:
            raise ExportError("an LSTM must have one direction, a bias and no projection")
        self.batch_first = source.batch_first
        self.num_layers = source.num_layers
        for layer in range(source.num_layers):
            weights = {name: getattr(source, f"{name}_l{layer}").detach() for name in NAMES}
            bias = torch.cat([_reorder(weights["bias_ih"]), _reorder(weights["bias_hh"])])
            self.register_buffer(f"weight_ih_l{layer}", _reorder(weights["weight_ih"])[None])
            self.register_buffer(f"weight_hh_l{layer}", _reorder(weights["weight_hh"])[None])
            self.register_buffer(f"bias_l{layer}", bias[None])

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        x = x.transpose(0, 1) if self.batch_first else x
        last_h, last_c = [], []
        for layer in range(self.num_layers):
            weights = [
                getattr(self, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias")
            ]
            start = [part[layer : layer + 1] for part in state]
            x, h, c = torch.ops.export.lstm(x, *weights, *start)
            last_h.append(h)
            last_c.append(c)
        x = x.transpose(0, 1) if self.batch_first else x
        if self.num_layers == 1:
            return x, (last_h[0], last_c[0])
        return x, (torch.cat(last_h), torch.cat(last_c))


NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _reorder(gates: Tensor) -> Tensor:
    """torch's i, f, c~, o -> ONNX's i, o, f, c~."""
    i, f, candidate, o = gates.chunk(4)
    return torch.cat([i, o, f, candidate])


def replace_lstms(module: nn.Module) -> nn.Module:
    """A copy of `module` in evaluation mode that is ready to trace; `module` stays as it is."""
    module = copy.deepcopy(module).eval().requires_grad_(False)
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.LSTM):
            parent = module.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], LstmExport(part))
    return module
