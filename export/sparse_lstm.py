"""An nn.LSTM of block sparsity, unrolled: ONNX's LSTM operator takes whole matrices only.

# Letters: N streams, S frames of a chunk, I input width, H hidden, G rows a group.

The input's share of the gates is one block layer over all frames of the chunk, the recurrent one a
block layer a frame. That pays where the matrices are large: I = H, S = 8, 90 % removed, onnxruntime
1.28, one thread, times as fast as the operator with its zeros left in the same precision:

    H       G     fp32   int8
    256     128   1.3    0.5
    512     128   2.4    0.9
    1024    128   4.9    1.3
    1024    512   8.2    2.4
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.sparse import find_blocks

PARTS = ("ih", "hh")


class BlockLstm(nn.Module):
    """Takes the place of an nn.LSTM of one layer; its weights keep their names."""

    bias: Tensor

    def __init__(self, source: nn.LSTM, group_rows: int, name: str) -> None:
        super().__init__()
        if source.num_layers != 1 or source.bidirectional or source.proj_size or not source.bias:
            raise ExportError(f"{name}: only an LSTM of one layer and direction has a block form")
        if source.hidden_size % max(group_rows, 1):
            raise ExportError(
                f"{name}: groups of {group_rows} rows do not divide its {source.hidden_size} "
                "units: choose a divisor"
            )
        self.batch_first = source.batch_first
        self.register_buffer("bias", sum(getattr(source, f"bias_{part}_l0") for part in PARTS))
        for part in PARTS:
            weight = getattr(source, f"weight_{part}_l0").detach()
            columns, blocks = find_blocks(weight, group_rows, f"{name}.weight_{part}_l0")
            whole = columns.shape[1] == weight.shape[1]
            self.register_buffer(f"columns_{part}_l0", None if whole else columns)
            self.register_buffer(f"weight_{part}_l0", weight.T.contiguous() if whole else blocks)

    def _product(self, part: str, x: Tensor) -> Tensor:
        weight: Tensor
        weight, columns = (getattr(self, f"{name}_{part}_l0") for name in ("weight", "columns"))
        if columns is None:
            return x @ weight
        product: Tensor = torch.ops.export.block_linear(x, columns, weight)
        return product

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (N, S, I) if batch_first, else (S, N, I); state h and c, (1, N, H) each."""
        gates = self._product("ih", x) + self.bias
        h, c = state[0][0], state[1][0]
        time = 1 if self.batch_first else 0
        outputs = []
        for frame in gates.unbind(time):
            i, f, candidate, o = (frame + self._product("hh", h)).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * candidate.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs, time), (h[None], c[None])
