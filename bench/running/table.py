"""The rows of bench/runtime.py as tables."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
ALONE = (
    "| bundle | precision | threads | ratio | ours: RTF | p50, p95 ms | sherpa-onnx: RTF "
    "| p50, p95 ms | load ms | peak MB | same tokens |"
)
TOGETHER = "| bundle | precision | streams | ratio | ours: times real time | sherpa-onnx |"


def to_markdown(alone: list[Row], together: list[Row]) -> str:
    """Two tables; a ratio above 1 says that ours is the faster."""
    lines = [ALONE, rule(ALONE), *map(alone_row, alone), "", TOGETHER, rule(TOGETHER)]
    return "\n".join([*lines, *map(together_row, together)]) + "\n"


def rule(head: str) -> str:
    return "|" + "---|" * (head.count("|") - 1)


def ratio(row: Row) -> str:
    return f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def alone_row(row: Row) -> str:
    cells = [row["bundle"], row["precision"], row["threads"], ratio(row)]
    for name in ("ours", "sherpa-onnx"):
        found = row[name]
        cells += [f"{found['rtf']:.4f}", f"{found['p50_ms']:.2f}, {found['p95_ms']:.2f}"]
    for key in ("load_ms", "peak_rss_mb"):
        cells.append(", ".join(f"{row[f'{n} alone'][key]:.0f}" for n in ("ours", "sherpa-onnx")))
    cells.append("yes" if row["same_tokens"] else "NO")
    return "| " + " | ".join(map(str, cells)) + " |"


def together_row(row: Row) -> str:
    speeds = [row["ours speed"], row["sherpa-onnx speed"]]
    cells = [row["bundle"], row["precision"], row["streams"], ratio(row), *speeds]
    return "| " + " | ".join(map(str, cells)) + " |"
