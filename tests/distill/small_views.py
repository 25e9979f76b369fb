"""Transducers of a few hundred weights and what a loss sees of them, on lattices small enough to
enumerate.

# Letters: B = 3 utterances, T = 5 frames, U = 3 labels, V = 7 tokens, J = 8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.targets.nbest import NBestTargets
from compress.distill.targets.reference import ReferenceTargets
from compress.distill.view import TeacherView, View
from compress.models.config import (
    StatelessPredictorConfig,
    TransducerConfig,
    uniform_conformer,
)
from compress.models.transducer import Transducer
from tests.reference.paths import log_likelihood

TARGETS = torch.tensor([[3, 5, 2], [4, 0, 0], [2, 2, 0]])
TARGET_LENGTHS = torch.tensor([3, 1, 2])
LOGIT_LENGTHS = torch.tensor([5, 3, 4])
KINDS = (NBestTargets(), ReferenceTargets())


def build_model(seed, vocab_size=7, predictor=StatelessPredictorConfig, **widths) -> Transducer:
    """Random, with logits far enough apart that no rounding decides."""
    torch.manual_seed(seed)
    encoder = uniform_conformer(
        num_layers=1, width=8, num_heads=1, feed_forward=8, joint_width=8, kernel_size=3
    )
    settings = predictor(width=8, joint_width=8, **widths)
    config = TransducerConfig(vocab_size=vocab_size, encoder=encoder, predictor=settings)
    model = Transducer(config).eval()
    with torch.no_grad():
        model.joiner.output.weight.mul_(8)
        model.joiner.output.bias[0] += 1.0
    return model


def batch_of(rows=slice(None)) -> Batch:
    return Batch(None, None, TARGETS[rows], TARGET_LENGTHS[rows], None, [])


def view_of(seed, rows=slice(None), dtype=torch.float32) -> View:
    """A model and what its encoder might say; the same for the same seed."""
    model = build_model(seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    encoded = torch.randn(3, 5, 8, generator=generator, dtype=torch.float64).to(dtype)
    encoded = encoded[rows].requires_grad_()
    return View(model, batch_of(rows), encoded, LOGIT_LENGTHS[rows])


def taught_by(view: View, kinds=KINDS) -> TeacherView:
    """The teacher's targets of the batch, stored and found again."""
    with torch.no_grad():
        items = {kind.name: kind.label(view, view.batch) for kind in kinds}
    stored = {
        kind.name: kind.collate(items[kind.name], view.batch, view.encoded.shape[1])
        for kind in kinds
    }
    return TeacherView(view.model, view.batch, view.logit_lengths, stored)


def enumerated_score(view: View, row: int, labels: list[int]) -> Tensor:
    """log P(labels|x) of an utterance: every node's softmax, every path."""
    num_frames = int(view.logit_lengths[row])
    predicted = [
        view.model.predictor(torch.tensor([[-1, 0, *labels][u : u + 2]]))[0]
        for u in range(len(labels) + 1)
    ]
    log_probs = torch.stack(
        [
            torch.stack([view.model.joiner(frame, one).log_softmax(-1) for one in predicted])
            for frame in view.encoded[row, :num_frames]
        ]
    )
    log_emit = torch.stack(
        [log_probs[:, u, label] for u, label in enumerate(labels)] or [log_probs[:, 0, 0]], 1
    )
    return log_likelihood(log_probs[:, :, 0], log_emit[:, : len(labels)])
