"""The picture of a run's losses and sparsity, out of the rows of log.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, NullLocator

from compress.report.pictures import INK, LINE_COLOURS, WIDTH

Rows = Sequence[Mapping[str, Any]]
Array = np.ndarray[Any, Any]

DASHES = ("-", "--", "-.")
# Columns of log.jsonl that are no loss.
NO_LOSS = {"step", "seconds", "norm", "rate", "sparsity", "parameters"}


def draw_curves(curves: Mapping[str, Rows]) -> Figure | None:
    """One panel a stage: every loss (faint, its running mean on top), sparsity on the right.

    None when no stage has a loss to show.
    """
    stages = {stage: rows for stage, rows in curves.items() if loss_names(rows)}
    if not stages:
        return None
    figure = Figure(figsize=(WIDTH, 2.9 * len(stages)), layout="constrained")
    panels = figure.subfigures(len(stages), 1, squeeze=False)
    for panel, (stage, rows) in zip(panels.flat, stages.items(), strict=True):
        _draw_stage(panel, stage, rows)
    return figure


def loss_names(rows: Rows) -> list[str]:
    """Columns of a log with a finite loss, as they appear; a sum of one part is left out."""
    found = dict.fromkeys(name for row in rows for name in row if name not in NO_LOSS)
    names = [name for name in found if len(_column(rows, name)[0])]
    if len(names) == 2 and "loss" in names:
        (part,) = set(names) - {"loss"}
        if all(row.get("loss") == row.get(part) for row in rows):
            names.remove("loss")
    return names


def running_mean(values: Array) -> Array:
    """Mean over a window of 5 % of the values, at least 3, narrower at the ends.

    [1, 2, 6] in a window of 3 gives [1.5, 3, 4].
    """
    half = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.minimum(np.arange(len(values)) + half + 1, len(values))
    begins = np.maximum(np.arange(len(values)) - half, 0)
    means: Array = (sums[ends] - sums[begins]) / (ends - begins)
    return means


def _draw_stage(panel: SubFigure, stage: str, rows: Rows) -> None:
    axes = panel.subplots()
    for number, name in enumerate(loss_names(rows)):
        steps, values = _column(rows, name)
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        dashes = DASHES[number // len(LINE_COLOURS) % len(DASHES)]
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(steps, running_mean(values), dashes, color=colour, label=name)
    _choose_scale(axes, rows)
    axes.set(title=stage, xlabel="step", ylabel="loss")
    axes.grid()
    handles, labels = axes.get_legend_handles_labels()
    steps, sparsity = _column(rows, "sparsity")
    if len(steps) and sparsity.max() > 0:
        handles += _draw_sparsity(axes, steps, sparsity)
        labels.append("sparsity")
    panel.legend(
        handles, labels, loc="outside lower center", ncols=4, columnspacing=1.2, handlelength=1.6
    )


def _draw_sparsity(axes: Axes, steps: Array, sparsity: Array) -> list[Any]:
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.set(ylim=(0, 104), ylabel="sparsity, %")
    return right.plot(steps, 100 * sparsity, color=INK, linewidth=1.2, linestyle=(0, (1, 1)))


def _choose_scale(axes: Axes, rows: Rows) -> None:
    """Logarithmic when the losses span more than a factor of 20."""
    values = np.concatenate([_column(rows, name)[1] for name in loss_names(rows)])
    if values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())


def _column(rows: Rows, name: str) -> tuple[Array, Array]:
    """Steps and values of the rows where a column is there and finite."""
    kept = [
        (row["step"], row[name])
        for row in rows
        if isinstance(row.get(name), int | float) and math.isfinite(row[name])
    ]
    pairs = np.array(kept, dtype=float).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
