"""From chains to rows, a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from bootstrap import pooled, relative_reduction

Row = dict[str, Any]
DATA = {
    "speech_commands + digits_fsdd": ("speech_commands", "digits_fsdd"),
    "speechocean762": ("speechocean762",),
}
DENSE = "dense"  # the teacher itself, in the place of a pattern
TICKS = (10, 20, 30, 50, 100)  # of WER, %
COLOURS = {"channel": "C0", "block": "C1", "unstructured": "C2", "small": "C3"}


def group(results: Sequence[Row]) -> dict[tuple, list[Row]]:
    """(data, pattern, sparsity, distilled) -> a row a seed, in the order of the seeds."""
    groups: dict[tuple, list[Row]] = {}
    for result in sorted(results, key=lambda result: result["seed"]):
        for data, packs in DATA.items():
            parts = [result["heard"][pack] for pack in packs]
            key = data, result["pattern"], result["sparsity"], result["distilled"]
            one = {name: [v for part in parts for v in part[name]] for name in ("errors", "words")}
            groups.setdefault(key, []).append(one | {"of": result})
    return groups


def errors_of(some: Sequence[Row]) -> np.ndarray:
    """(seeds, utterances)."""
    return np.array([one["errors"] for one in some])


def build_rows(results: Sequence[Row], sizes: dict[tuple[str, float], Row]) -> list[Row]:
    """A row for each data set, pattern, level and way of training.

    results: of single seeds. sizes: bytes and speed of a pattern's student at a level.
    """
    rows = []
    for (data, pattern, sparsity, distilled), some in sorted(group(results).items()):
        errors, words = errors_of(some), np.array(some[0]["words"])
        wer, low, high = pooled(errors, words)
        rows.append(
            {
                "data": data,
                "pattern": pattern,
                "sparsity": sparsity,
                "measured_sparsity": some[0]["of"]["measured_sparsity"],
                "distilled": distilled,
                "seeds": len(some),
                "words": int(words.sum()),
                "wer": wer,
                "low": low,
                "high": high,
                "wer_by_seed": (errors.sum(1) / words.sum()).tolist(),
                **sizes.get((pattern, sparsity), {}),
            }
        )
    return rows


def build_comparisons(results: Sequence[Row]) -> list[Row]:
    """Word errors saved: distilling over not, and each pattern over unstructured (less than 0 is
    what its form costs), of the seeds that both have, with paired 95 % intervals."""
    groups = group(results)
    rows = []
    for (data, pattern, sparsity, distilled), some in sorted(groups.items()):
        rivals = {"undistilled": (data, pattern, sparsity, False)} if distilled else {}
        if pattern != "unstructured":
            rivals["unstructured"] = data, "unstructured", sparsity, distilled
        for rival, key in rivals.items():
            theirs = {one["of"]["seed"]: one for one in groups.get(key, [])}
            ours = {one["of"]["seed"]: one for one in some}
            seeds = sorted(ours.keys() & theirs.keys())
            if not seeds:
                continue
            without, with_ = (errors_of([part[seed] for seed in seeds]) for part in (theirs, ours))
            saved, low, high = relative_reduction(without, with_)
            rows.append(
                {
                    "data": data,
                    "pattern": pattern,
                    "sparsity": sparsity,
                    "distilled": distilled,
                    "against": rival,
                    "seeds": len(seeds),
                    "relative_reduction": saved,
                    "low": low,
                    "high": high,
                }
            )
    return rows


def to_markdown(rows: Sequence[Row]) -> str:
    """One line a row."""
    head = ["data", "pattern", "removed", "distilled", "seeds", "WER %", "95 %"]
    head += ["int8 kB", "packed kB", "x"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        lines.append(
            [
                row["data"],
                row["pattern"],
                f"{100 * row['sparsity']:.0f} %",
                "yes" if row["distilled"] else "no",
                f"{row['seeds']}",
                f"{100 * row['wer']:.2f}",
                f"{100 * row['low']:.2f} to {100 * row['high']:.2f}",
                f"{row['onnx_bytes'] / 1e3:.0f}" if "onnx_bytes" in row else "",
                f"{row['packed_bytes'] / 1e3:.0f}" if "packed_bytes" in row else "",
                f"{row['rtf_ratio_to_dense_fp32']:.2f}" if "rtf_ratio_to_dense_fp32" in row else "",
            ]
        )
    note = "x: real-time factor relative to the dense teacher's fp32 bundle, smaller is faster.\n"
    return draw_lines(lines) + "\n" + note


def comparisons_to_markdown(rows: Sequence[Row]) -> str:
    """What a pattern costs beside zeros anywhere, and what distilling saves, % of word errors."""
    lines = [["data", "pattern", "removed", "distilled", "against", "seeds", "errors", "95 %"]]
    lines.append(["---"] * len(lines[0]))
    for row in rows:
        more, low, high = (-100 * row[key] for key in ("relative_reduction", "high", "low"))
        lines.append(
            [
                row["data"],
                row["pattern"],
                f"{100 * row['sparsity']:.0f} %",
                "yes" if row["distilled"] else "no",
                row["against"],
                f"{row['seeds']}",
                f"{more:+.0f} %",
                f"{low:+.0f} to {high:+.0f}",
            ]
        )
    return draw_lines(lines)


def draw_lines(lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """WER against sparsity and against bytes; dashed lines were trained without a teacher."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.8), layout="constrained")
    some = [row for row in rows if row["data"].startswith("speech_commands")]
    patterns = list(dict.fromkeys(row["pattern"] for row in some if row["pattern"] != DENSE))
    for pattern in patterns:
        colour = COLOURS.get(pattern.partition(":")[0], "C4")
        for distilled, style in ((True, "-"), (False, "--")):
            line = [r for r in some if (r["pattern"], r["distilled"]) == (pattern, distilled)]
            wer = np.array([100 * row["wer"] for row in line])
            bars = np.array([[100 * (r["wer"] - r["low"]) for r in line],
                             [100 * (r["high"] - r["wer"]) for r in line]])  # fmt: skip
            label = pattern + ("" if distilled else ", without")
            for axis, key, scale in zip(
                axes,
                ("sparsity", "onnx_bytes", "rtf_ratio_to_dense_fp32"),
                (100, 1e-3, 1),
                strict=True,
            ):
                if distilled or key == "sparsity":
                    x = [row.get(key, np.nan) * scale for row in line]
                    axis.errorbar(x, wer, bars, fmt=style, marker="o", ms=3, lw=1.2,
                                  color=colour, label=label, capsize=2)  # fmt: skip
    titles = ("share of the teacher removed, %", "kB of the int8 graphs", "time, dense fp32 = 1")
    for axis, title in zip(axes, titles, strict=True):
        for row in (row for row in some if row["pattern"] == DENSE):
            axis.axhline(100 * row["wer"], color="0.5", lw=1, ls=":", label="the teacher, dense")
        axis.set_xlabel(title)
        axis.set_ylabel("WER, %")
        axis.set_yscale("log")
        axis.set_yticks(TICKS, [str(tick) for tick in TICKS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    lines, labels = axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
