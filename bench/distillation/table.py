"""From cells to rows: pooled word error rates, the relative reduction and its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from bootstrap import relative_reduction
from distillation.cells import COMPARISONS, Comparison


def stack(results: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """errors (seeds, utterances) and words (utterances,)."""
    return np.array([one["errors"] for one in results]), np.array(results[0]["words"])


def build_row(comparison: Comparison, results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    pair = results[comparison.without], results[comparison.with_]
    (without, words), (with_, _) = map(stack, pair)
    reduction, low, high = relative_reduction(without, with_)
    return {
        "paper": comparison.paper,
        "setting": comparison.setting,
        "without": comparison.without,
        "with": comparison.with_,
        "data": sorted(set(pair[0][0]["data"])),
        "seeds": len(without),
        "utterances": len(words),
        "words": int(words.sum()),
        "parameters": pair[1][0]["parameters"],
        "wer_without": without.sum() / (len(without) * words.sum()),
        "wer_with": with_.sum() / (len(with_) * words.sum()),
        "relative_reduction": reduction,
        "low": low,
        "high": high,
        "wer_without_by_seed": (without.sum(1) / words.sum()).tolist(),
        "wer_with_by_seed": (with_.sum(1) / words.sum()).tolist(),
    }


def build_rows(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for every comparison whose two cells were run on the same number of seeds."""
    return [
        build_row(comparison, results)
        for comparison in COMPARISONS
        if results.get(comparison.without)
        and len(results[comparison.without]) == len(results.get(comparison.with_, []))
    ]


def describe(row: dict[str, Any]) -> list[str]:
    change = f"{100 * row['relative_reduction']:+.1f} %"
    interval = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
    return [
        row["paper"],
        row["setting"],
        f"{100 * row['wer_without']:.2f}",
        f"{100 * row['wer_with']:.2f}",
        f"{change} ({interval})",
    ]


HEADER = ["paper", "comparison", "WER without", "WER with", "word errors saved (95 %)"]


def to_markdown(rows: list[dict[str, Any]]) -> str:
    lines = [HEADER, ["---"] * len(HEADER), *map(describe, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Relative reductions with their intervals, one line a comparison."""
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(rows) + 1.2), layout="constrained")
    for place, row in enumerate(rows):
        low, middle, high = (100 * row[name] for name in ("low", "relative_reduction", "high"))
        colour = "tab:green" if low > 0 else "tab:red" if high < 0 else "tab:grey"
        axes.plot([low, high], [place, place], color=colour, linewidth=3, alpha=0.5)
        axes.plot(middle, place, "o", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{row['setting']} ({row['paper']})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("word errors saved, % (95 % interval)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
