"""Networks small enough to enumerate, seen as a method of distillation sees them.

# Letters: B utterances, T encoder frames, U labels, V tokens incl. blank, J joint width.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.view import View
from compress.models.joiner import Joiner

V = 9
TARGETS = torch.tensor([[3, 5, 2], [4, 0, 0], [7, 7, 0]])
TARGET_LENGTHS = torch.tensor([3, 1, 2])
LOGIT_LENGTHS = torch.tensor([5, 4, 1])


def batch_of(targets: Tensor = TARGETS, target_lengths: Tensor = TARGET_LENGTHS) -> Batch:
    """A batch of which the losses read nothing but the labels."""
    return Batch(None, None, targets, target_lengths, None, [])


def view_of(encoded: Tensor, predicted: Tensor, joiner: Joiner, batch: Batch, lengths) -> View:
    """A model whose encoder and predictor said `encoded` (B, T, J) and `predicted` (B, U+1, J)."""
    predictor = SimpleNamespace(forward_sequence=lambda targets: predicted)
    return View(SimpleNamespace(predictor=predictor, joiner=joiner), batch, encoded, lengths)


def random_view(seed: int, dtype: torch.dtype = torch.float32, joint_width: int = 5) -> View:
    """Three utterances of 5, 4 and 1 frames with 3, 1 and 2 labels; every tensor wants gradient."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    joiner = Joiner(joint_width, V)
    joiner.output.weight = torch.nn.Parameter(draw(V, joint_width).detach())
    joiner.output.bias = torch.nn.Parameter(draw(V).detach())
    encoded, predicted = draw(3, 5, joint_width), draw(3, 4, joint_width)
    return view_of(encoded, predicted, joiner, batch_of(), LOGIT_LENGTHS)


def select(view: View, rows: list[int]) -> View:
    """These utterances alone, cut to the longest of them."""
    lengths, batch = view.logit_lengths[rows], view.batch
    frames, labels = int(lengths.max()), int(batch.target_lengths[rows].max())
    smaller = batch_of(batch.targets[rows, :labels], batch.target_lengths[rows])
    encoded, predicted = view.encoded[rows, :frames], view.predicted[rows, : labels + 1]
    return view_of(encoded, predicted, view.joiner, smaller, lengths)


def parameters(view: View) -> list[Tensor]:
    return [view.encoded, view.predicted, view.joiner.output.weight, view.joiner.output.bias]


def full_log_probs(view: View) -> Tensor:
    """(B, T, U+1, V), all at once."""
    hidden = torch.tanh(view.encoded.unsqueeze(2) + view.predicted.unsqueeze(1))
    return view.joiner.output(hidden).log_softmax(-1).detach()
