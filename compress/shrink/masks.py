"""Pruning by zeros: the network keeps its shapes, masks say which weights are in use.

    weight = mask * hidden

A hidden weight goes on learning while its mask is 0: the gradient of the loss where the weight is
zero moves it (straight through), so a weight that was cut too early can come back at the next
pruning (2011.06110 recomputes its masks from dense weights too). Parameters of the network always
hold the product; the optimiser moves them, and `after_step` carries the move to `hidden`.

# Letters: R rows, C columns of a weight seen as a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.models.transducer import Transducer
from compress.shrink.allocation import spread
from compress.shrink.channel import Kept
from compress.shrink.evidence import Evidence
from compress.shrink.layouts import Block, Layout
from compress.shrink.least_squares import fit_blocks
from compress.shrink.schedule import check_sparsity
from compress.shrink.scores import score_weights
from streaming.errors import InputError


def weight_names(model: nn.Module, module: str) -> list[str]:
    """The matrices of a module by parameter name; an nn.LSTM has several."""
    parameters = model.get_submodule(module).named_parameters(recurse=False)
    return [f"{module}.{name}" for name, weight in parameters if weight.ndim > 1]


def matrix_shape(weight: Tensor) -> tuple[int, int]:
    """(R, C): output rows and everything they read; a convolution's kernel lies in C."""
    return weight.shape[0], weight[0].numel()


def cut_weight(
    name: str,
    weight: Tensor,
    hidden: Tensor,
    layout: Layout,
    kept: int,
    score: str,
    evidence: Evidence | None,
) -> tuple[Tensor, Tensor]:
    """Mask and hidden weight of one matrix, of which `kept` values stay.

    Blocks whose inputs the evidence knows are fitted to what the weight in use computes.
    """
    shape = matrix_shape(weight)
    moments = evidence.moments(name) if evidence else None
    if moments is None or not isinstance(layout, Block):
        scores = score_weights(name, hidden, score, evidence)
        return layout.mask(scores.reshape(shape), kept).reshape(weight.shape), hidden
    mask, fitted = fit_blocks(weight.reshape(shape).float(), moments, layout.rows, kept // shape[0])
    mask = mask.reshape(weight.shape)
    return mask, torch.where(mask, fitted.reshape(weight.shape), hidden)


class MaskPruner:
    """Zeroes weights of `model` in place, by layouts.

    layouts: module -> how its zeros lie. num_parameters_dense: of the whole dense model.
    shares: module -> its share of what is pruned relative to others, 1 by default (allocation.py).

    A model that comes with zeros in those layers (a resumed or continued run) begins with them.
    """

    def __init__(
        self,
        model: Transducer,
        layouts: Mapping[str, Layout],
        num_parameters_dense: int,
        score: str = "magnitude",
        evidence: Evidence | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        if not layouts:
            raise InputError("no layers are left to prune: exclude fewer modules")
        self.model = model
        self.num_parameters_dense = num_parameters_dense
        self.score = score
        self.evidence = evidence
        self.layouts: dict[str, Layout] = {}
        self.shares: dict[str, float] = {}
        for module, layout in layouts.items():
            for name in weight_names(model, module):
                layout.check(name, matrix_shape(model.get_parameter(name)))
                self.layouts[name] = layout
                self.shares[name] = (shares or {}).get(module, 1.0)
        specs = {module: layout.spec for module, layout in layouts.items()}
        begun = {**model.config.sparse}
        model.config = model.config.model_copy(update={"sparse": {**begun, **specs}})
        self.masks = {
            name: self._weight(name) != 0
            if name.rpartition(".")[0] in begun
            else torch.ones_like(self._weight(name), dtype=torch.bool)
            for name in self.layouts
        }
        self.hidden = {name: self._weight(name).clone() for name in self.layouts}

    def _weight(self, name: str) -> Tensor:
        return self.model.get_parameter(name).detach()

    @property
    def num_prunable(self) -> int:
        return sum(self._weight(name).numel() for name in self.layouts)

    @property
    def num_kept(self) -> int:
        """Values of the whole model in use."""
        kept = sum(int(mask.count_nonzero()) for mask in self.masks.values())
        return self.model.num_parameters - self.num_prunable + kept

    @property
    def sparsity(self) -> float:
        return 1 - self.num_kept / self.num_parameters_dense

    @property
    def max_sparsity(self) -> float:
        fewest = sum(low for _, low, _ in self._ladders().values())
        always = self.model.num_parameters - self.num_prunable
        return 1 - (always + fewest) / self.num_parameters_dense

    def _ladders(self) -> dict[str, tuple[int, int, int]]:
        """weight -> (values, fewest that stay, values between two steps)."""
        shapes = {name: matrix_shape(self._weight(name)) for name in self.layouts}
        return {
            name: (rows * columns, *self.layouts[name].steps((rows, columns)))
            for name, (rows, columns) in shapes.items()
        }

    def check(self, sparsity: float) -> None:
        """Raises InputError for a sparsity that these layouts cannot reach."""
        if check_sparsity(sparsity) <= self.max_sparsity + 1e-12:
            return
        always = self.model.num_parameters - self.num_prunable
        ladders = self._ladders()
        stops = max(ladders, key=lambda name: ladders[name][1])
        spec = self.layouts[stops].spec
        blocks = spec.startswith("block")
        more = "; block:64, say, prunes layers that would be no faster too" if blocks else ""
        raise InputError(
            f"pattern {spec} cannot reach sparsity {sparsity:g}: {always} of "
            f"{self.num_parameters_dense} values are in no layer that it prunes, and "
            f"{stops.rpartition('.')[0]} keeps at least {ladders[stops][1]} of its "
            f"{ladders[stops][0]}: the most is {int(self.max_sparsity * 1e4) / 1e4:g}{more}"
        )

    def plan(self, sparsity: float) -> dict[str, int]:
        """weight -> values that stay at `sparsity` of the whole dense model."""
        self.check(sparsity)
        always = self.model.num_parameters - self.num_prunable
        budget = int((1 - sparsity) * self.num_parameters_dense) - always
        return spread(self._ladders(), budget, self.shares)

    @torch.no_grad()
    def prune_to(self, sparsity: float, optimizer: torch.optim.Optimizer | None = None) -> Kept:
        """Masks for `sparsity`, anew from the hidden weights; no shape changes.

        Moments of the optimiser stay: they tell how fast a hidden weight moves. Least squares goes
        by the weights in use, so where no more has to go it changes nothing: a level of a sweep
        begins where the one before ended, before it has heard enough to fit anything.
        """
        if self.score == "least_squares" and sparsity <= self.sparsity:
            return {}
        for name, kept in self.plan(sparsity).items():
            weight, hidden, layout = self._weight(name), self.hidden[name], self.layouts[name]
            cut = cut_weight(name, weight, hidden, layout, kept, self.score, self.evidence)
            self.masks[name], self.hidden[name] = cut
            # Not a product: -0.0 is no zero byte, and costs a download 2 %.
            weight.copy_(torch.where(*cut, 0.0))
        return {}

    @torch.no_grad()
    def after_step(self) -> None:
        """Zeros stay zeros after an optimiser's step, which moved hidden weights by as much."""
        for name, mask in self.masks.items():
            parameter, hidden = self.model.get_parameter(name), self.hidden[name]
            # where(mask, ..) to the bit, as products: 5 instead of 14 ms at 5.5 M parameters.
            in_use = mask.to(hidden.dtype)
            hidden.addcmul_(hidden, in_use, value=-1.0).add_(parameter)
            parameter.mul_(in_use).add_(0.0)  # the sum makes +0.0 of -0.0

    def state(self) -> dict[str, Any]:
        return {"masks": self.masks, "hidden": self.hidden}

    def load_state(self, state: dict[str, Any]) -> None:
        self.masks, self.hidden = dict(state["masks"]), dict(state["hidden"])
