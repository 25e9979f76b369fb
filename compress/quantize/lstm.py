"""nn.LSTM as onnxruntime's DynamicQuantizeLSTM computes it, unrolled, with a gradient.

# Letters: B utterances, N streams, S frames, I input width, H hidden.

int8 weights; what multiplies them is uint8 by a range of its own in every call: the inputs of a
chunk together, the recurrent h of every frame alone. A stream runs with a batch of one, so here
each utterance has its own ranges. LSTMs in blocks are the same products (export/sparse_lstm.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.quantize.rounding import round_in_call


class RoundedLstm(nn.LSTM):
    """Takes the place of an nn.LSTM whose weights are rounded by others.

    chunk: frames of a call, over which the range of the inputs is taken.
    """

    chunk: int

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, S, I), state h and c (L, B, H) -> every h (B, S, H), last h and c (L, B, H)."""
        assert self.batch_first
        size = self.num_layers, len(x), self.hidden_size
        h, c = state if state else (x.new_zeros(size), x.new_zeros(size))
        last = []
        for layer in range(self.num_layers):
            x, *end = self._run_layer(layer, x, h[layer], c[layer])
            last.append(end)
        return x, (torch.stack([h for h, _ in last]), torch.stack([c for _, c in last]))

    def _run_layer(self, layer: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w, r, *biases = (getattr(self, f"{name}_l{layer}") for name in names)
        gates = F.linear(round_chunks(x, self.chunk), w, biases[0] + biases[1])
        outputs = []
        for frame in gates.unbind(1):
            i, f, candidate, o = (frame + F.linear(round_in_call(h, 1), r)).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * candidate.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs, 1), h, c


def round_chunks(x: Tensor, chunk: int) -> Tensor:
    """x (B, S, I), each `chunk` of its frames rounded by its own range."""
    num_frames = x.shape[1]
    padded = F.pad(x, (0, 0, 0, -num_frames % chunk))
    rounded = round_in_call(padded.unflatten(1, (-1, chunk)), 2)
    return rounded.flatten(1, 2)[:, :num_frames]
