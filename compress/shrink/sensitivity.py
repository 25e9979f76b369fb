"""How much each layer can lose: prune it alone, and see what becomes of what the teacher says.

    loss_i(s)     lattice divergence (distill/lattice.py) of the teacher from itself with a share s
                  of layer i gone, at once and without training, nats a label

shares.py chooses by it. On speech that was not measured on, the built-in teacher with 90 % of its
weights gone at once is 5.7 nats a label from itself when layers lose by this rule, 7.2 by shares
softened as in a run, and 19 when all lose the same; with blocks of 64 rows 4.1, 5.3 and 24.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from compress.data.batches import Batch, BatchSampler
from compress.distill.lattice import lattice
from compress.distill.view import View, view_batch
from compress.models.transducer import Transducer
from compress.progress import console, track
from compress.report.quantities import format_count
from compress.shrink.pruner import Cut
from compress.shrink.shares import Layer, Sensitivity, allocate, soften
from compress.shrink.single import count_terms, list_singles

LEVELS = (0.5, 0.8, 0.95, 0.99)
SECONDS = 20.0  # of speech: 71 modules at 4 levels take 48 s on one thread with 5.5 M parameters
FAINT = 5e-4  # nats a label; less is shown as 0
NEAR = 0.02  # a step of a layout beside a level still counts as it in the table


@torch.no_grad()
def measure_sensitivity(
    teacher: Transducer, cut: Cut, batches: Sequence[Batch], levels: Sequence[float] = LEVELS
) -> Sensitivity:
    """The loss of every layer that `cut` prunes, alone, at every level that it can have."""
    singles = list_singles(teacher, cut, batches)
    terms = count_terms(teacher, singles)
    views = [view_batch(teacher, batch) for batch in batches]
    layers = []
    for single in track(singles, "sensitivity", len(singles)):
        shares = dict.fromkeys(single.nearest(level) for level in levels)
        losses = {share: divergence(single.prune(share), views) for share in shares if share > 0}
        size = sum(terms[names] for names in terms if single.name in names)
        layers.append(Layer(single.name, single.pattern, size, losses))
    return Sensitivity([layer for layer in layers if layer.losses], terms)


def divergence(student: Transducer, views: Sequence[View]) -> float:
    """Of the student from the teacher, mean over the batches, nats a label."""
    losses = [lattice(view_batch(student, view.batch), view, view.batch) for view in views]
    return float(torch.stack(losses).mean())


def choose_batches(sampler: BatchSampler, seconds: float = SECONDS) -> list[Batch]:
    """A little speech of each of the sampler's sources, evenly spaced."""
    batches = []
    for source in sampler.sources:
        times = len(sampler.sources) * source.store.seconds / seconds
        rows = source.store.rows[:: max(1, round(times))]
        batches.append(sampler.collate(source.store, rows))
    return batches


def measure_shares(
    teacher: Transducer, cut: Cut, sampler: BatchSampler, sparsity: float
) -> dict[str, float]:
    """`Cut.shares` of a run, measured on some of its training data and shown as a table."""
    sensitivity = measure_sensitivity(teacher, cut, choose_batches(sampler))
    shares = soften(allocate(sensitivity, sparsity))
    console.print(draw_table(sensitivity, shares))
    return shares


def draw_table(sensitivity: Sensitivity, shares: Mapping[str, float]) -> Table:
    """A line a layer: its size, what it costs at each level, and what it loses of its weights
    relative to the layer that loses most."""
    title = "nats a label when a share of one layer goes"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for column in ("size", *(f"{100 * level:.0f} %" for level in LEVELS), "loses"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in sensitivity.layers:
        most = max(layer.losses) + NEAR
        losses = [show_loss(layer.loss_at(level)) if level < most else "" for level in LEVELS]
        loses = f"{shares[layer.name] / max(shares.values()):.2f}"
        name = layer.name.removeprefix("encoder.")  # 80 columns hold the rest
        table.add_row(name, format_count(layer.size), *losses, loses)
    return table


def show_loss(loss: float) -> str:
    return f"{loss:.2g}" if loss >= FAINT else "0"
