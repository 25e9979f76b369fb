"""Two tiny families of transducers, a batch, and what distillation sees of both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.data.batches import Batch
from compress.distill.targets.kind import Kind
from compress.distill.view import TeacherView, view_batch
from compress.models.config import (
    LstmConfig,
    LstmPredictorConfig,
    StatelessPredictorConfig,
    TransducerConfig,
    uniform_conformer,
)
from compress.models.transducer import Transducer

NUM_MEL_BINS = 8
VOCABULARY = 11
FAMILIES = ["conformer", "lstm"]


def build(family: str, joint_width: int = 12, seed: int = 0, chunk_frames: int = 8) -> Transducer:
    common = {
        "num_mel_bins": NUM_MEL_BINS,
        "subsampling_width": 8,
        "joint_width": joint_width,
        "chunk_frames": chunk_frames,
    }
    if family == "conformer":
        encoder = uniform_conformer(
            num_layers=1, width=16, num_heads=2, feed_forward=16, kernel_size=3, **common
        )
        predictor = StatelessPredictorConfig(width=8, joint_width=joint_width)
    else:
        encoder = LstmConfig(width=12, hidden=[12], **common)
        predictor = LstmPredictorConfig(embedding=6, width=8, joint_width=joint_width)
    torch.manual_seed(seed)
    config = TransducerConfig(vocab_size=VOCABULARY, encoder=encoder, predictor=predictor)
    return Transducer(config)


class PairFrames(nn.Module):
    """A stand-in encoder with a frame every 20 ms: two frames of features side by side."""

    subsampling = 2

    def __init__(self, joint_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * NUM_MEL_BINS, joint_width)

    def forward(self, features: Tensor, feature_lengths: Tensor, chunk_frames: int | None = None):
        pairs = features[:, : features.shape[1] // 2 * 2].unflatten(1, (-1, 2)).flatten(2)
        return self.project(pairs), (feature_lengths + 1) // 2


def build_fast(joint_width: int = 12, seed: int = 0) -> Transducer:
    """Twice the frames of the other models."""
    model = build("lstm", joint_width, seed)
    model.encoder = PairFrames(joint_width)
    return model


def tiny_batch(seed: int = 0) -> Batch:
    """Three utterances of 40, 25 and 8 frames (10, 7 and 2 of the encoder) with 3, 2, 0 labels."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(3, 40, NUM_MEL_BINS, generator=generator) - 6.0
    targets = torch.tensor([[3, 5, 2], [4, 9, 0], [0, 0, 0]])
    lengths = torch.tensor([40, 25, 8]), torch.tensor([3, 2, 0])
    for row, length in enumerate(lengths[0].tolist()):
        features[row, length:] = -16.0
    phones = torch.zeros(3, 40, dtype=torch.uint8)
    return Batch(features, lengths[0], targets, lengths[1], phones, [])


def only(batch: Batch, rows: list[int]) -> Batch:
    """Some utterances, padded no more than they need."""
    num_frames = int(batch.feature_lengths[rows].max())
    num_labels = max(1, int(batch.target_lengths[rows].max()))
    return Batch(
        batch.features[rows, :num_frames],
        batch.feature_lengths[rows],
        batch.targets[rows, :num_labels],
        batch.target_lengths[rows],
        batch.phones[rows, :num_frames],
        [],
    )


def store(teacher: Transducer, batch: Batch, kinds: list[Kind], num_frames: int) -> TeacherView:
    """A frozen teacher's view, through the arrays that would lie on disk."""
    with torch.no_grad():
        view = view_batch(teacher.eval(), batch)
        items = {kind.name: kind.label(view, batch) for kind in kinds}
    stored = {kind.name: kind.collate(items[kind.name], batch, num_frames) for kind in kinds}
    return TeacherView(teacher, batch, view.logit_lengths, stored)


def gradients(loss: Tensor, model: nn.Module) -> dict[str, bool]:
    """By child module: whether any parameter of it gets a gradient from the loss."""
    reached = {}
    for name, child in model.named_children():
        found = torch.autograd.grad(
            loss, list(child.parameters()), retain_graph=True, allow_unused=True
        )
        reached[name] = any(part is not None and part.abs().max() > 0 for part in found)
    return reached


def train(model: nn.Module, loss_of, steps: int = 12, rate: float = 0.01) -> list[float]:
    """The losses of a few steps of Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
