"""The report's pictures, drawn so narrow that a phone shows their letters at full size.

Bars carry their names and numbers, so nothing hangs on colour; the colours are those of Okabe and
Ito (https://jfly.uni-koeln.de/color), told apart by colour-blind readers too.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compress.report.quantities import (
    format_bytes,
    format_count,
    format_ms,
    format_share,
    format_times,
)

WIDTH = 4.8  # inches
DOTS_PER_INCH = 200
TEACHER, STUDENT, ALONE, BUNDLE = "#0072B2", "#E69F00", "#999999", "#009E73"
ROUNDED = "#F0E442"
LINE_COLOURS = (TEACHER, "#D55E00", "#CC79A7", STUDENT, "#56B4E9")
INK, FAINT = "#222222", "#DDDDDD"
STYLE: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "text.parse_math": False,  # a data set may be called $x$
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}

# Names and colours of the four models, in the order of the bars.
MODELS = {
    "teacher": ("teacher", TEACHER),
    "student": ("student", STUDENT),
    "student_without_distillation": ("no distillation", ALONE),
    "student_with_rounding": ("with rounding", ROUNDED),
    "bundle": ("bundle", BUNDLE),
}


def draw_word_error_rates(report: Mapping[str, Any]) -> Figure | None:
    """A bar for each model in each set, with its 95 % interval; None when no set has words."""
    groups = wer_groups(report)
    if not groups:
        return None
    num_rows = sum(len(bars) + 1.1 for bars in groups.values())
    figure, axes = _figure(height=0.65 + 0.27 * num_rows)
    widest = max(
        max(rate["wer"], rate["high"] or 0) for g in groups.values() for rate in g.values()
    )
    ceiling = 100 * (widest or 0.01)
    ticks, labels, y = [], [], 0.0
    for name, bars in groups.items():
        axes.text(0, y, name, weight="bold", va="center", ha="left")
        y += 0.95
        for model, rate in bars.items():
            label, colour = MODELS[model]
            _bar_with_interval(axes, y, rate, colour, ceiling)
            ticks.append(y)
            labels.append(label)
            y += 1
        y += 0.15
    axes.set_yticks(ticks, labels)
    axes.set(ylim=(y - 0.4, -0.6), xlim=(0, 1.22 * ceiling))
    axes.set_xlabel("word error rate, %, with 95 % interval")
    _only_horizontal(axes)
    return figure


def wer_groups(report: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """set -> model -> rate, of the models that were measured on it; sets without words are out."""
    rates = {model: (report.get(model) or {}).get("wer", {}) for model in MODELS}
    names = list(dict.fromkeys(name for sets in rates.values() for name in sets))
    groups = {
        name: {
            model: sets[name]
            for model, sets in rates.items()
            if name in sets and sets[name]["words"] > 0 and sets[name]["wer"] is not None
        }
        for name in names
    }
    return {name: bars for name, bars in groups.items() if bars}


def draw_sizes(report: Mapping[str, Any]) -> Figure:
    """Parameters, then bytes, from teacher to student to bundle."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": [2, 4]})
    teacher, student = report["teacher"], report["student"]
    counts = [("teacher", teacher["parameters"], TEACHER)]
    counts += [("student", student["parameters"], STUDENT)]
    _size_bars(above, "parameters", counts, format_count)
    sizes = [("teacher", teacher["bytes"], TEACHER)]
    shrunk = zip(student_sizes(report), (STUDENT, BUNDLE, BUNDLE), strict=False)
    sizes += [(label, size, colour) for (label, size), colour in shrunk]
    _size_bars(below, "bytes", sizes, format_bytes)
    return figure


def student_sizes(report: Mapping[str, Any]) -> list[tuple[str, int]]:
    """What the student takes as float32, as .onnx files, and packed if that differs."""
    onnx, packed = report["bundle"]["onnx_bytes"], report["bundle"]["packed_bytes"]
    sizes = [("student, float32", 4 * report["student"]["parameters"]), (".onnx files", onnx)]
    return sizes + [("the same, packed", packed)] * (packed not in (None, onnx))


def draw_latency(chunk_ms: Sequence[float]) -> Figure | None:
    """Histogram of the time a chunk takes; the slowest 1 % share the last bar."""
    times = np.array([time for time in chunk_ms if math.isfinite(time)])
    if not len(times):
        return None
    middle, high, most = np.percentile(times, [50, 95, 99])
    end = max(most, 1.15 * high, 1e-3)
    figure, axes = _figure(height=2.6)
    axes.hist(np.minimum(times, end), bins=40, range=(0, end), color=BUNDLE, alpha=0.75)
    top = axes.get_ylim()[1]
    axes.set(xlim=(0, end), ylim=(0, 1.3 * top))
    for name, time, height, dashes in (("p50", middle, 1.22, "-"), ("p95", high, 1.08, "--")):
        axes.plot([time, time], [0, height * top], color=INK, linestyle=dashes, linewidth=1.3)
        left = time > 0.6 * end
        axes.annotate(
            f"{name} {format_ms(time)}",
            (time, height * top),
            xytext=(-5 if left else 5, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
        )
    slowest = f"; slowest {format_ms(times.max())}" if times.max() > end else ""
    axes.set_xlabel(f"milliseconds a chunk, {len(times)} chunks{slowest}")
    axes.set_ylabel("chunks")
    return figure


def render_picture(draw: Callable[[], Figure | None]) -> bytes | None:
    """Draw in the report's style; PNG, or None when there was nothing to draw."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box in place of a rare letter
        figure = draw()
        if figure is None:
            return None
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return content.getvalue()


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _only_horizontal(axes: Axes) -> None:
    """Bars lie on a plain ground with faint vertical lines to read them by."""
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _bar_with_interval(
    axes: Axes, y: float, rate: Mapping[str, float], colour: str, ceiling: float
) -> None:
    wer, low, high = (100 * (rate[key] or 0) for key in ("wer", "low", "high"))
    axes.barh(y, wer, height=0.78, color=colour)
    end = max(wer, high)
    if high > 0:
        axes.errorbar(
            wer,
            y,
            xerr=[[max(0.0, wer - low)], [max(0.0, high - wer)]],
            color=INK,
            capsize=3,
            linewidth=1.1,
        )
    axes.text(end + 0.02 * ceiling, y, format_share(rate["wer"]), va="center", ha="left")


def _size_bars(
    axes: Axes,
    title: str,
    bars: Sequence[tuple[str, float | None, str]],
    form: Callable[[float], str],
) -> None:
    """Bars with their size and how much smaller than the first they are; no bar for None."""
    known = [(label, size, colour) for label, size, colour in bars if size]
    first = known[0][1] or 1
    for y, (_, size, colour) in enumerate(known):
        assert size is not None
        times = f"  {format_times(first / size)} smaller" if y and size < first else ""
        axes.barh(y, size, height=0.7, color=colour)
        axes.annotate(
            form(size) + times,
            (size, y),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    largest = max(size or 0 for _, size, _ in known)
    axes.set_yticks(range(len(known)), [label for label, _, _ in known])
    axes.set(xlim=(0, 1.3 * largest), ylim=(len(known) - 0.45, -0.55))
    axes.set_title(title)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    _only_horizontal(axes)
