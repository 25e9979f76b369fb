"""report.json, report.md and report.html of a run, with their pictures.

folder/  report.json  report.md  report.html  report_{wer,size,loss,latency}.png
         curves.json   the losses and chunk times that the pictures are drawn from
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from matplotlib.figure import Figure
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from compress.atomic import write_atomically
from compress.report.curves import draw_curves
from compress.report.pages import to_html, to_markdown
from compress.report.pictures import draw_latency, draw_sizes, draw_word_error_rates, render_picture
from compress.report.sections import build_page
from streaming.errors import InputError


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON cannot say, become null: 0 errors in 0 words."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]


class Rate(BaseModel):
    """A fraction with its 95 % bootstrap interval; null when the set has no words."""

    wer: Number
    low: Number
    high: Number
    words: int


Rates = dict[str, Rate]


class Teacher(BaseModel):
    parameters: int
    bytes: int
    wer: Rates


class Layer(BaseModel):
    """A matrix of the bundle. shape: rows and columns left. sparsity: zeros among them.

    form: `blocks`, stored and computed without its zeros; `zeros`, stored with zeros that make
    nothing faster; `dense`.
    """

    name: str
    pattern: str
    shape: list[int]
    sparsity: Number
    bits: int
    form: Literal["blocks", "zeros", "dense"]
    stored: str = ""
    why: str = ""


class Student(BaseModel):
    parameters: int
    prunable_sparsity: Number
    total_sparsity: Number
    wer: Rates
    layers: list[Layer] = []


class StudentAlone(BaseModel):
    """Another student of the same run."""

    wer: Rates


class ChunkTimes(BaseModel):
    p50: Number
    p95: Number


class Bundle(BaseModel):
    path: str
    onnx_bytes: int
    packed_bytes: int | None
    wer: Rates
    rtf: Number
    chunk_ms: ChunkTimes
    load_ms: Number
    peak_rss_mb: Number


class ChunkSize(BaseModel):
    """What the bundle for chunks of `size_ms` does, bundles/NNNms."""

    size_ms: int
    wer: Rates
    onnx_bytes: int
    rtf: Number


class Rung(BaseModel):
    """One step of the parity ladder; the names `from` and `to` are report.json's."""

    from_: str = Field(alias="from")
    to: str
    max_error: Number
    token_agreement: Number
    passed: bool


class Report(BaseModel):
    """report.json: stable, other tools read it. Keys it does not name are not written."""

    schema_: Literal[1] = Field(1, alias="schema")
    seed: int
    command: list[str]
    teacher: Teacher
    student: Student
    student_without_distillation: StudentAlone | None
    student_with_rounding: StudentAlone | None = None
    bundle: Bundle
    chunks: list[ChunkSize] = []
    parity: list[Rung]
    seconds: dict[str, float]


Curves = Mapping[str, Sequence[Mapping[str, Any]]]


def write_report(
    folder: Path, report: Mapping[str, Any], curves: Curves, chunk_ms: Sequence[float]
) -> Path:
    """Write the whole report; returns report.html.

    report: as report.json, "schema" may be left out. curves: stage -> rows of its log.jsonl.
    chunk_ms: milliseconds of every chunk the bundle decoded. Each file is whole or not written.
    Raises InputError: full disk; ValidationError (our own mistake): a report without a key.
    """
    content = Report.model_validate(report).model_dump(by_alias=True)
    drawn = {
        "curves": {
            stage: [{name: _finite(value) for name, value in row.items()} for row in rows]
            for stage, rows in curves.items()
        },
        "chunk_ms": [round(time, 3) for time in chunk_ms],
    }
    _write_text(folder / "curves.json", json.dumps(drawn, allow_nan=False) + "\n")
    _write_text(folder / "report.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    pictures = _draw_all(folder, content, curves, chunk_ms)
    page = build_page(folder.resolve().name, content, pictures)
    _write_text(folder / "report.md", to_markdown(page))
    _write_text(folder / "report.html", to_html(page))
    return folder / "report.html"


def rerender(folder: Path) -> Path:
    """Make a run's pictures and pages again from report.json and curves.json.

    Without curves.json there are no pictures of losses and latency. Returns report.html.
    Raises InputError for a folder without a finished report, or one of another version.
    """
    path = folder / "report.json"
    if not path.is_file():
        raise InputError(
            f"{folder} has no report.json: give the folder of a finished run, or finish this one "
            "with compress run --resume"
        )
    report = _read_json(path)
    try:
        Report.model_validate(report)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path}: {place}: {first['msg']}: another version wrote it, run compress run again"
        ) from error
    drawn = _read_json(folder / "curves.json") if (folder / "curves.json").is_file() else {}
    return write_report(folder, report, drawn.get("curves", {}), drawn.get("chunk_ms", []))


def _draw_all(
    folder: Path, report: Mapping[str, Any], curves: Curves, chunk_ms: Sequence[float]
) -> dict[str, Path]:
    """Name -> PNG of what there is to draw; a picture of an earlier report does not stay."""
    draw: dict[str, Callable[[], Figure | None]] = {
        "wer": lambda: draw_word_error_rates(report),
        "size": lambda: draw_sizes(report),
        "loss": lambda: draw_curves(curves),
        "latency": lambda: draw_latency(chunk_ms),
    }
    pictures = {}
    for name, figure in draw.items():
        path = folder / f"report_{name}.png"
        content = render_picture(figure)
        if content is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, partial(Path.write_bytes, data=content))
            pictures[name] = path
    return pictures


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda growing: growing.write_text(text, encoding="utf-8"))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: copy the run's folder again") from error
