"""What a training shows between two prunings: how weights moved the loss, how large inputs were.

Gathered by hooks, so the training loop knows nothing of it: gradients are gone when a step is
over. Sums are float32, also under bfloat16 autocast.

# Letters: B utterances, T frames, U labels, J joint width, R what a unit owns of a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from compress.models.transducer import Transducer
from compress.shrink.lstm import gates_of

# Neighbouring frames are alike. With 5.5 M weights and 40 s of audio a step, 240 ms on a CPU, all
# of them cost 21 ms, these 6 ms.
FRAMES_APART = 4
MOMENT_FRAMES_APART = 2  # second moments of 768 inputs want more frames than there are inputs

Reader: TypeAlias = nn.Linear | nn.Conv1d


class Evidence:
    """Means since the last pruning, of what `score` needs and nothing else.

    taylor      gradients g, before clipping: the mean over steps of g^2 for each weight, and of
                (sum_R w g)^2 for each slice of a parameter. Squares of steps are averaged, as in
                arXiv 1906.10771, because a trained model's mean gradient is near 0.
    activation  the mean over frames of x_j^2 for every input j of each Linear, Conv1d and LSTM,
                padding included. The loss does not call the joiner's output as a module: its
                inputs are taken on the lattice's diagonal, row u = t (U + 1) / T.
    least_squares  for the same inputs E[x x'], their second moments.
    magnitude   nothing.

    weights: whether masks of single weights will ask; channels do not, and taylor then needs no
        copy of the model's size, in memory and checkpoints.

    Modules count in training mode only: measuring a WER leaves no trace. Pruning and putting old
    weights back change shapes: call `clear` then; after the last pruning `close`, and the hooks
    cost nothing more.
    """

    def __init__(self, model: nn.Module, score: str, weights: bool = True) -> None:
        self.model = model
        self.score = score
        self.weights = weights
        self.encoded: Tensor | None = None
        self.handles: list[RemovableHandle] = []
        self.clear()
        if score == "taylor":
            self._watch_gradients()
        if score in ("activation", "least_squares"):
            self._watch_inputs()

    @property
    def empty(self) -> bool:
        """True before the first step and after `clear`."""
        return not self.counts

    def clear(self) -> None:
        """Start anew, with the shapes that the model has now."""
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.shapes = {name: value.shape for name, value in self.model.named_parameters()}

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def knows(self, name: str) -> bool:
        return name in self.sums

    def weight_factors(self, name: str) -> Tensor | None:
        """What times w^2 is a weight's score, in the parameter's shape; None if nothing is known.

        taylor: E[g^2]; activation: E[x_j^2] of the input that the weight reads.
        """
        mean = self._mean(name)
        if mean is None or mean.shape == self.shapes[name]:
            return mean
        return spread_inputs(mean, self.shapes[name])

    def moments(self, name: str) -> Tensor | None:
        """least_squares: E[x x'] of what a matrix reads, (inputs, inputs); None if nothing is
        known, and for a convolution over several frames."""
        mean = self._mean(name) if self.score == "least_squares" else None
        return mean if mean is not None and len(mean) == self.shapes[name][1:].numel() else None

    def unit_squares(self, name: str, dim: int) -> Tensor | None:
        """taylor: E[(sum_R w g)^2] of the units along `dim`; an LSTM's gates lie in R."""
        return self._mean(f"{name}:{dim}")

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to prune as the one that was never killed."""
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.clear()
        devices = {name: value.device for name, value in self.model.named_parameters()}
        for key, total in state["sums"].items():
            device = devices.get(key.partition(":")[0])
            if device:  # hooks keep a layer's old name when layers before it are dropped
                self._add(key, total.to(device), state["counts"][key])

    def _mean(self, key: str) -> Tensor | None:
        return self.sums[key] / self.counts[key] if key in self.sums else None

    def _add(self, key: str, total: Tensor, count: int = 1) -> None:
        """`total` becomes ours."""
        if key in self.sums:
            self.sums[key] += total
        else:
            self.sums[key] = total
        self.counts[key] = self.counts.get(key, 0) + count

    def _watch_gradients(self) -> None:
        for name, parameter in self.model.named_parameters():
            hook = partial(self._hear_gradient, name, gates_of(self.model, name))
            self.handles.append(parameter.register_post_accumulate_grad_hook(hook))

    @torch.no_grad()
    def _hear_gradient(self, name: str, num_gates: int, parameter: Tensor) -> None:
        assert parameter.grad is not None
        change = (parameter * parameter.grad).float()
        for dim in range(change.ndim):
            others = [other for other in range(change.ndim) if other != dim]
            total = change.sum(others) if others else change
            if dim == 0:
                total = total.reshape(num_gates, -1).sum(0)
            self._add(f"{name}:{dim}", total.square())
        if self.weights:
            self._add(name, parameter.grad.float().square())

    def _watch_inputs(self) -> None:
        for path, module in self.model.named_modules():
            prefix = f"{path}." if path else ""
            if isinstance(module, nn.LSTM):
                hear = partial(self._hear_lstm, prefix)
                self.handles.append(module.register_forward_hook(hear))
            elif isinstance(module, Reader) and path != "joiner.output":
                hook = partial(self._hear_inputs, f"{prefix}weight")
                self.handles.append(module.register_forward_pre_hook(hook))
        if isinstance(self.model, Transducer):
            encoder, predictor = self.model.encoder.project, self.model.predictor.project
            self.handles.append(encoder.register_forward_hook(self._hear_encoded))
            self.handles.append(predictor.register_forward_hook(self._hear_predicted))

    def _hear_inputs(self, name: str, module: Reader, inputs: tuple[Tensor]) -> None:
        if module.training:
            x = inputs[0].detach()
            self._add_inputs(name, x.transpose(1, -1) if isinstance(module, nn.Conv1d) else x)

    def _hear_lstm(self, prefix: str, module: nn.LSTM, inputs: Any, outputs: Any) -> None:
        """The recurrence reads what the layer said a frame before. Of several layers in one
        module the first's inputs and the last's outputs are seen."""
        if module.training:
            self._add_inputs(f"{prefix}weight_ih_l0", inputs[0].detach())
            self._add_inputs(f"{prefix}weight_hh_l{module.num_layers - 1}", outputs[0].detach())

    def _hear_encoded(self, module: nn.Linear, inputs: Any, encoded: Tensor) -> None:
        self.encoded = encoded.detach() if module.training else None

    def _hear_predicted(self, module: nn.Linear, inputs: Any, predicted: Tensor) -> None:
        """predicted (B, U+1, J) meets the encoder's (B, T, J) of the same step."""
        if module.training and self.encoded is not None:
            num_frames = self.encoded.shape[1]
            rows = torch.arange(num_frames, device=predicted.device) * predicted.shape[1]
            predicted = predicted.detach()[:, rows // num_frames]
            self._add_inputs("joiner.output.weight", torch.tanh(self.encoded + predicted))

    def _add_inputs(self, key: str, x: Tensor) -> None:
        """x (.., inputs)."""
        every = x.reshape(-1, x.shape[-1])
        if self.score == "least_squares":
            frames = every[::MOMENT_FRAMES_APART].float()
            with torch.autocast(frames.device.type, enabled=False):
                self._add(key, frames.T @ frames, len(frames))
        else:
            frames = every[::FRAMES_APART]
            self._add(key, frames.square().sum(0, dtype=torch.float32), len(frames))


def spread_inputs(squares: Tensor, shape: torch.Size) -> Tensor:
    """One value an input, (I,), to one a weight: `shape` is (outputs, I / groups, ...).

    >>> spread_inputs(torch.tensor([1.0, 2.0]), torch.Size([2, 1, 3]))  # depthwise
    tensor([[[1., 1., 1.]],
    <BLANKLINE>
            [[2., 2., 2.]]])
    """
    groups = len(squares) // shape[1]
    by_output = squares.reshape(groups, -1).repeat_interleave(shape[0] // groups, 0)
    return by_output.reshape(*by_output.shape, *[1] * (len(shape) - 2)).expand(shape)
