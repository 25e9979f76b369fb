"""What accuracy costs: word error rate against bytes and against time, one colour a pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compress.report.pictures import INK, LINE_COLOURS, WIDTH
from compress.report.quantities import format_bytes

Rows = Sequence[Mapping[str, Any]]
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
AXES = {"onnx_bytes": "bytes of the bundle", "rtf": "real-time factor"}
PANEL_HEIGHT = 2.7  # inches


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both, by the first; of equal ones the first.

    >>> pareto_front([(3, 1), (1, 5), (2, 6), (2, 4), (4, 1)])
    [1, 3, 0]
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: points[index]):
        if not front or points[index][1] < points[front[-1]][1]:
            front.append(index)
    return front


def draw_pareto(rows: Rows, teacher: Mapping[str, Any]) -> Figure:
    """Two panels a data set. rows: data, pattern, sparsity, wer, low, high, onnx_bytes, rtf.

    teacher: data -> its word error rate, a dashed line.
    """
    sets = list(dict.fromkeys(row["data"] for row in rows))
    height = PANEL_HEIGHT * len(AXES) * len(sets) + 0.5
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels = iter(figure.subplots(len(AXES) * len(sets), 1, squeeze=False)[:, 0])
    for name in sets:
        some = [row for row in rows if row["data"] == name]
        for key, label in AXES.items():
            axes = next(panels)
            draw_panel(axes, some, key)
            if name in teacher:
                axes.axhline(
                    100 * teacher[name], color=INK, linestyle="--", linewidth=1, label="teacher"
                )
            axes.set(title=name, xlabel=label, ylabel="word error rate, %")
    handles, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    figure.legend(list(named.values()), list(named), loc="outside upper center", ncols=3)
    return figure


def draw_panel(axes: Axes, rows: Rows, key: str) -> None:
    """WER with intervals against `key`; the line is the front of all patterns together."""
    patterns = list(dict.fromkeys(row["pattern"] for row in rows))
    for number, pattern in enumerate(patterns):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        some = [row for row in rows if row["pattern"] == pattern]
        axes.errorbar(
            [row[key] for row in some],
            [100 * row["wer"] for row in some],
            yerr=[
                [100 * max(0.0, row["wer"] - row["low"]) for row in some],
                [100 * max(0.0, row["high"] - row["wer"]) for row in some],
            ],
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            linestyle="none",
            capsize=3,
            linewidth=1.1,
            label=pattern,
        )
        for row in some:
            place = row[key], 100 * row["wer"]
            text = f"{100 * row['sparsity']:g} %"
            axes.annotate(
                text, place, (4, 4), textcoords="offset points", fontsize=7.5, color=colour
            )
    front = [rows[index] for index in pareto_front([(row[key], row["wer"]) for row in rows])]
    axes.plot(
        [row[key] for row in front],
        [100 * row["wer"] for row in front],
        color=INK,
        alpha=0.5,
        drawstyle="steps-post",
        linewidth=1.2,
        label="Pareto front",
    )
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 1.2 * max(row[key] for row in rows))  # room for the last label
    axes.grid(axis="both")
    axes.locator_params(axis="x", nbins=5)
    if key == "onnx_bytes":
        axes.xaxis.set_major_formatter(lambda size, _: format_bytes(size))
