"""`compress sweep`: several patterns at several sparsities, each level from the one before.

DIR/config.yaml              what was asked for
    channel-0.6/  channel-0.8/  ..     ordinary runs; 0.8 goes on from the student of 0.6
    sweep.{json,md,png}      word error rate against bytes and time
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from compress.atomic import write_atomically, write_json
from compress.claim import claim_folder
from compress.config import RunConfig
from compress.pipeline import run_pipeline
from compress.progress import say
from compress.report.pareto import draw_pareto
from compress.report.pictures import render_picture
from compress.report.quantities import format_bytes, format_share
from compress.run import Run
from compress.shrink.pruner import check_pattern
from compress.shrink.schedule import check_sparsity
from compress.trial import measure_rtf
from streaming.errors import InputError

TITLES = ["pattern", "removed", "WER", "bytes", "packed", "rtf"]


@dataclass(frozen=True)
class Level:
    """One run of a sweep; `start` is the folder of the student that it goes on from."""

    pattern: str
    sparsity: float
    folder: Path
    start: Path | None

    def config(self, base: RunConfig) -> RunConfig:
        recipe = base.recipe.model_copy(update={"sparsity": self.sparsity})
        start = str(self.start.resolve()) if self.start else None
        update = {"pattern": self.pattern, "start": start, "recipe": recipe}
        return base.model_copy(update=update)

    @property
    def finished(self) -> bool:
        return (self.folder / "report" / "done.json").exists()


def parse_levels(text: str) -> list[float]:
    """Ascending sparsities of "0.6,0.8". Raises InputError for anything else."""
    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--sparsity is numbers and commas, as in 0.6,0.8; got {text!r}") from None
    for level in levels:
        check_sparsity(level)
    if len(set(levels)) < len(levels):
        raise InputError(f"--sparsity {text} names a level twice")
    return sorted(levels)


def parse_patterns(text: str) -> list[str]:
    patterns = [check_pattern(part.strip()) for part in text.split(",")]
    if len(set(patterns)) < len(patterns):
        raise InputError(f"--pattern {text} names a pattern twice")
    return patterns


def list_levels(folder: Path, patterns: Sequence[str], sparsities: Sequence[float]) -> list[Level]:
    """Pattern by pattern, from the least removed on; a small network is new at every level."""
    levels = []
    for pattern in patterns:
        start = None
        for sparsity in sparsities:
            place = folder / f"{pattern.replace(':', '-')}-{sparsity:g}"
            levels.append(Level(pattern, sparsity, place, start))
            start = None if pattern == "small" else place / "student"
    return levels


def run_sweep(
    base: RunConfig,
    patterns: Sequence[str],
    sparsities: Sequence[float],
    folder: Path,
    resume: bool,
) -> None:
    """Every level of every pattern, then the table and the picture.

    Raises InputError for levels that cannot be reached, before anything is trained, and for a
    folder of another sweep.
    """
    levels = list_levels(folder, patterns, sparsities)
    weights = (Path(base.teacher) / "model.safetensors").read_bytes()
    asked = base.model_dump(mode="json", exclude={"pattern", "start"}) | {
        "patterns": list(patterns),
        "sparsities": list(sparsities),
        "teacher_sha256": hashlib.sha256(weights).hexdigest(),
    }
    if not folder.exists():
        check_levels(base, levels)
    claim_folder(asked, folder, resume)
    for number, level in enumerate(levels, 1):
        name = f"{level.pattern} at {level.sparsity:g}"
        say(f"level {number} of {len(levels)}: {name}{', done before' if level.finished else ''}")
        if not level.finished:
            run_pipeline(level.config(base), level.folder, resume=level.folder.exists())
    path = folder / "sweep.json"
    if not path.exists():
        write_json(path, gather(base, levels))
    draw(folder, json.loads(path.read_text()))


def check_levels(base: RunConfig, levels: Sequence[Level]) -> None:
    """Raises InputError that names every level which cannot be reached."""
    refused = []
    for level in levels:
        try:
            Run(level.config(base), level.folder).untrained(level.sparsity)
        except InputError as error:
            refused.append((level, str(error)))
    if refused:
        names = ", ".join(f"{level.pattern} at {level.sparsity:g}" for level, _ in refused)
        raise InputError(f"not reachable: {names}: {refused[0][1]}")


def gather(base: RunConfig, levels: Sequence[Level]) -> dict[str, Any]:
    """sweep.json: a row for each level and data set; rates are of the bundles, on test speech.

    Real-time factors are measured again, side by side: those of the runs are hours apart.
    """
    say("real-time factors, side by side")
    run = Run(base, Path())
    bundles = {str(level.folder): level.folder / "bundle" for level in levels}
    factors = measure_rtf(bundles, run.some_speech())
    reports = [json.loads((level.folder / "report.json").read_text()) for level in levels]
    rows: list[dict[str, Any]] = []
    for level, report in zip(levels, reports, strict=True):
        bundle = report["bundle"]
        for name, rate in bundle["wer"].items():
            rows.append(
                {
                    "data": name,
                    "pattern": level.pattern,
                    "sparsity": level.sparsity,
                    "removed": report["student"]["total_sparsity"],
                    **{key: rate[key] for key in ("wer", "low", "high", "words")},
                    "onnx_bytes": bundle["onnx_bytes"],
                    "packed_bytes": bundle["packed_bytes"],
                    "rtf": factors[str(level.folder)],
                }
            )
    return {"schema": 1, "teacher": reports[0]["teacher"], "rows": rows}


def draw(folder: Path, sweep: dict[str, Any]) -> None:
    """sweep.png, sweep.md, and the tables on stdout."""
    rows = sweep["rows"]
    teacher = {name: rate["wer"] for name, rate in sweep["teacher"]["wer"].items()}
    picture = render_picture(lambda: draw_pareto(rows, teacher))
    assert picture
    write_atomically(folder / "sweep.png", lambda path: path.write_bytes(picture))
    text = ["![word error rate against bytes and time](sweep.png)", ""]
    for name in dict.fromkeys(row["data"] for row in rows):
        cells = [table_row(row) for row in rows if row["data"] == name]
        show_table(name, cells)
        lines = ["| " + " | ".join(line) + " |" for line in (TITLES, ["---"] * len(TITLES), *cells)]
        text += [f"{name}, teacher {format_share(teacher.get(name))}:", "", *lines, ""]
    write_atomically(folder / "sweep.md", lambda path: path.write_text("\n".join(text)))
    say(f"wrote {folder}/sweep.json, sweep.md and sweep.png")


def show_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    table = Table(*TITLES, title=title, box=SIMPLE)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def table_row(row: dict[str, Any]) -> list[str]:
    return [
        row["pattern"],
        format_share(row["removed"]),
        f"{format_share(row['wer'])} [{100 * row['low']:.2f}, {100 * row['high']:.2f}]",
        format_bytes(row["onnx_bytes"]),
        format_bytes(row["packed_bytes"]),
        f"{row['rtf']:.4f}",
    ]
