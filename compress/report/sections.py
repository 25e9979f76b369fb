"""What the report says: report.json in, a page out, before it is Markdown or HTML."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.report.pages import Block, Code, Page, Picture, Section, Table, Text
from compress.report.pictures import MODELS, student_sizes, wer_groups
from compress.report.quantities import (
    UNKNOWN,
    format_bytes,
    format_count,
    format_duration,
    format_error,
    format_ms,
    format_share,
    format_times,
)

Report = Mapping[str, Any]
WORDS = {
    "wer": "Word error rate of each model in each set, with 95 % intervals",
    "size": "Parameters and bytes from teacher to student to bundle",
    "loss": "Losses and sparsity over the training steps",
    "latency": "Histogram of the milliseconds a chunk takes",
}


def build_page(name: str, report: Report, pictures: Mapping[str, Path]) -> Page:
    """report: a checked report.json. pictures: those of WORDS that were drawn."""

    def picture(key: str) -> list[Block]:
        return [Picture(pictures[key], WORDS[key])] if key in pictures else []

    sections = [
        Section("Word errors", picture("wer") + _word_errors(report)),
        Section("Size", picture("size") + _sizes(report)),
        Section("Speed", picture("latency") + _speed(report)),
        Section("Sizes of a chunk", list_chunks(report)),
        Section("Layers", list_layers(report)),
        Section("Parity, step by step", _parity(report["parity"])),
        Section("Training", picture("loss")),
        Section("How it was made", _making(report)),
    ]
    return Page(
        title=f"{name}: from teacher to device",
        facts=_facts(report),
        sections=[section for section in sections if section.blocks],
        warning=_warning(report["parity"]),
    )


def _facts(report: Report) -> list[tuple[str, str]]:
    teacher, student, bundle = report["teacher"], report["student"], report["bundle"]
    before, after = teacher["parameters"], student["parameters"]
    facts = [
        (
            format_times(before / max(after, 1)),
            f"fewer parameters: {format_count(before)} → {format_count(after)}",
        ),
        (
            format_bytes(bundle["onnx_bytes"]),
            f"the bundle's three .onnx files; the teacher has {format_bytes(teacher['bytes'])}",
        ),
    ]
    for name, rates in wer_groups(report).items():
        if "teacher" in rates and "bundle" in rates:
            first, last = (100 * rates[model]["wer"] for model in ("teacher", "bundle"))
            facts.append(
                (f"{first:.3g} → {last:.3g} %", f"word errors on {name}, teacher → bundle")
            )
    if bundle["chunk_ms"]["p95"] is not None:
        time = format_ms(bundle["chunk_ms"]["p95"])
        facts.append((time, "for a chunk, 95 times in 100 no more"))
    return facts


def _warning(parity: Sequence[Mapping[str, Any]]) -> str | None:
    failed = [f"{rung['from']} → {rung['to']}" for rung in parity if not rung["passed"]]
    if not failed:
        return None
    return f"Not verified: {', '.join(failed)} did not pass. Do not ship this bundle."


def _word_errors(report: Report) -> list[Block]:
    measured = {model: report[model]["wer"] for model in MODELS if report.get(model)}
    names = list(dict.fromkeys(name for rates in measured.values() for name in rates))
    if not names:
        return [Text("No set was decoded.")]
    rows = [
        [MODELS[model][0], *(_rate_cell(sets.get(name)) for name in names)]
        for model, sets in measured.items()
    ]
    gaps = [_gap(measured["teacher"].get(name), measured["bundle"].get(name)) for name in names]
    rows.append(["bundle − teacher", *gaps])
    return [
        Table(["", *(_set_cell(name, measured) for name in names)], rows),
        Text(
            "Lower is better; below each the 95 % bootstrap interval. The bundle's errors are "
            "those of the shipped files, decoded chunk by chunk as on a device."
        ),
    ]


def _set_cell(name: str, measured: Mapping[str, Any]) -> str:
    words = max(sets[name]["words"] for sets in measured.values() if name in sets)
    return f"{name}\n{words} words"


def _rate_cell(rate: Mapping[str, Any] | None) -> str:
    if not rate or not rate["words"] or rate["wer"] is None:
        return UNKNOWN
    if rate["low"] is None or rate["high"] is None:
        return format_share(rate["wer"])
    return f"{format_share(rate['wer'])}\n{100 * rate['low']:.2f} to {100 * rate['high']:.2f}"


def _gap(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """Difference in percentage points: 0.011 and 0.025 give "+1.40"."""
    if UNKNOWN in (_rate_cell(before), _rate_cell(after)) or not before or not after:
        return UNKNOWN
    return f"{100 * (after['wer'] - before['wer']):+.2f}".replace("-", "−")


def _sizes(report: Report) -> list[Block]:
    teacher, student = report["teacher"], report["student"]
    sizes = [("teacher", teacher, teacher["bytes"])]
    sizes += [(label, student, size) for label, size in student_sizes(report)]
    rows = [[label, f"{m['parameters']:,}", format_bytes(size)] for label, m, size in sizes]
    return [
        Table(["", "parameters", "bytes"], rows),
        Text(
            f"Removed: {format_share(student['total_sparsity'])} of the whole model's parameters, "
            f"{format_share(student['prunable_sparsity'])} of those that may be pruned."
        ),
    ]


def _speed(report: Report) -> list[Block]:
    bundle = report["bundle"]
    rtf, memory = bundle["rtf"], bundle["peak_rss_mb"]
    rows = [
        ["real-time factor (work a second of audio)", UNKNOWN if rtf is None else f"{rtf:.4f}"],
        ["a chunk, median", format_ms(bundle["chunk_ms"]["p50"])],
        ["a chunk, 95th percentile", format_ms(bundle["chunk_ms"]["p95"])],
        ["loading the bundle", format_ms(bundle["load_ms"])],
        ["peak memory of the process", UNKNOWN if memory is None else f"{memory:.0f} MB"],
    ]
    return [Table(["the bundle on this machine", ""], rows)]


def list_chunks(report: Report) -> list[Block]:
    """The same student's bundles for other chunks: how long the first word waits, what it costs."""
    chunks = report.get("chunks", [])
    if not chunks:
        return []
    names = list(chunks[0]["wer"])
    rows = []
    for chunk in chunks:
        rtf = UNKNOWN if chunk["rtf"] is None else f"{chunk['rtf']:.4f}"
        rates = [_rate_cell(chunk["wer"].get(name)) for name in names]
        rows.append([f"{chunk['size_ms']} ms", *rates, format_bytes(chunk["onnx_bytes"]), rtf])
    return [
        Table(["chunk", *names, "bytes", "real-time factor"], rows),
        Text("Bundles of the same student, in bundles/. Sound waits for its chunk to be whole."),
    ]


def list_layers(report: Report) -> list[Block]:
    """What became of every kind of layer, and the zeros that are no speed."""
    layers = report["student"].get("layers", [])
    kinds: dict[tuple[str, str, str, int, str], list[Mapping[str, Any]]] = {}
    for layer in layers:
        kind = ".".join(part for part in layer["name"].split(".") if not part.isdigit())
        key = kind, layer["pattern"], layer["form"], layer["bits"], layer.get("stored", "")
        kinds.setdefault(key, []).append(layer)
    rows = []
    for (kind, pattern, form, bits, stored), some in kinds.items():
        values = sum(math.prod(layer["shape"]) for layer in some)
        zeros = sum(math.prod(layer["shape"]) * (layer["sparsity"] or 0) for layer in some)
        share = format_share(zeros / values) if form != "dense" else "none"
        rows.append([kind, str(len(some)), pattern, FORMS[form], share, f"{bits} {stored}".strip()])
    if not rows:
        return []
    head = ["layers", "number", "pattern", "in the bundle", "zeros", "bits, form"]
    return [Table(head, rows), *_wide_layers(layers), Text(_idle_zeros(layers))]


def _wide_layers(layers: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Why --quantize auto left layers in 16 or 32 bits."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        if layer.get("why"):
            reasons.setdefault((layer["stored"], layer["why"]), []).append(layer["name"])
    if not reasons:
        return []
    rows = [
        [names[0] + (f" and {len(names) - 1} more" if names[1:] else ""), stored, why]
        for (stored, why), names in reasons.items()
    ]
    return [Table(["layers", "form", "why no narrower one"], rows)]


FORMS = {
    "blocks": "computed without its zeros",
    "zeros": "computed with its zeros",
    "dense": "dense",
}


def _idle_zeros(layers: Sequence[Mapping[str, Any]]) -> str:
    idle = [layer for layer in layers if layer["form"] == "zeros"]
    if not idle:
        return "No zeros are stored: everything that was removed makes the bundle smaller."
    zeros = sum(round(math.prod(layer["shape"]) * (layer["sparsity"] or 0)) for layer in idle)
    return (
        f"{zeros:,} zeros ({len(idle)} matrices) are stored and multiplied like any other value: "
        "they make nothing faster, and the files no smaller. compress pack leaves them out of a "
        "download; pattern block or channel turns them into speed."
    )


def _parity(parity: Sequence[Mapping[str, Any]]) -> list[Block]:
    if not parity:
        return []
    rows = [
        [
            f"{rung['to']}\nagainst {rung['from']}",
            "passed" if rung["passed"] else "FAILED",
            format_error(rung["max_error"]),
            format_share(rung["token_agreement"]),
        ]
        for rung in parity
    ]
    return [Table(["", "result", "largest error", "same tokens"], rows)]


def command_line(words: Sequence[str]) -> str:
    """For a shell; a long one has a line for each option."""
    line = shlex.join(words)
    if len(line) <= 60:
        return line
    return " ".join(("\\\n    " if w.startswith("--") else "") + shlex.quote(w) for w in words)


def _making(report: Report) -> list[Block]:
    seconds = report["seconds"]
    blocks: list[Block] = [
        Code(command_line(report["command"])),
        Text(f"Seed {report['seed']}. The bundle is in {report['bundle']['path']}."),
    ]
    if seconds:
        rows = [[stage, format_duration(time)] for stage, time in seconds.items()]
        rows.append(["together", format_duration(sum(seconds.values()))])
        blocks.append(Table(["stage", "time"], rows))
    return blocks
