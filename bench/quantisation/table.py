"""The rows of bench/quantize.py as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

Row = dict[str, Any]
COLOURS = {"fp32": "C7", "int8": "C0", "static": "C1", "int4": "C2", "qat": "C3", "auto": "C4"}
MARKERS = ("o", "s", "^")


def to_markdown(words: Sequence[Row], costs: Sequence[Row]) -> str:
    """A line for each model and variant: costs, then WER and its difference from fp32 per set."""
    sets = list(dict.fromkeys(row["data"] for row in words))
    head = ["model", "form", "kB", "time", "loading", "memory MB", *sets]
    lines = [head, ["---"] * len(head)]
    for cost in costs:
        key = cost["model"], cost["variant"]
        rates = {r["data"]: r for r in words if (r["model"], r["variant"]) == key}
        lines.append(
            [
                *key,
                f"{cost['onnx_bytes'] / 1000:.0f}",
                f"{cost['rtf_ratio_to_fp32']:.2f}",
                f"{cost['load_ratio_to_fp32']:.2f}",
                f"{cost['peak_rss_mb']:.0f}",
                *(show_rate(rates[name]) for name in sets),
            ]
        )
    note = (
        "kB of the three graphs; time and loading relative to fp32 of the same model, one thread; "
        "WER % and in brackets the 95 % interval of its difference from fp32, in points, paired "
        "over utterances.\n"
    )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n" + note


def show_rate(row: Row) -> str:
    rate = f"{100 * row['wer']:.2f}"
    if row["variant"] == "fp32":
        return rate
    return f"{rate} ({100 * row['difference_low']:+.2f} to {100 * row['difference_high']:+.2f})"


def draw(words: Sequence[Row], costs: Sequence[Row], known: Sequence[str], path: Path) -> None:
    """WER pooled over the sets that the models know, against bytes and against time."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    axes = {"onnx_bytes": "kB of the three graphs", "rtf": "ms of work for a second of audio"}
    scales = {"onnx_bytes": 1e-3, "rtf": 1e3}
    models = list(dict.fromkeys(cost["model"] for cost in costs))
    for panel, (key, label) in zip(panels, axes.items(), strict=True):
        for cost in costs:
            marker, colour = MARKERS[models.index(cost["model"])], COLOURS[cost["variant"]]
            wer = 100 * pool(words, cost, known)
            panel.plot(scales[key] * cost[key], wer, marker, color=colour, ms=8, alpha=0.8)
        panel.set(xscale="log", xlabel=label, ylabel=f"WER %, {' and '.join(known)}")
        panel.grid(alpha=0.3, which="both")
    for model, marker in zip(models, MARKERS, strict=False):
        panels[0].plot([], [], marker, color="grey", label=model)
    for variant, colour in COLOURS.items():
        panels[0].plot([], [], "-", lw=6, color=colour, label=variant)
    figure.legend(loc="outside upper center", ncols=len(MARKERS) + len(COLOURS), fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def pool(words: Sequence[Row], cost: Row, known: Sequence[str]) -> float:
    """Word errors over words of some sets together."""
    some = [
        row
        for row in words
        if (row["model"], row["variant"]) == (cost["model"], cost["variant"])
        and row["data"].partition("/")[0] in known
    ]
    errors = sum(row["wer"] * row["words"] for row in some)
    return float(errors / max(1, sum(row["words"] for row in some)))
