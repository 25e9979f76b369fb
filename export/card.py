"""README.md of a bundle: a model card with YAML front matter, built from what bundle.json says."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.card_use import describe_use, name_form
from streaming.bundle import BundleInfo

CARD_FILE = "README.md"
FRONT_MATTER = """---
language: en
license: apache-2.0
library_name: sherpa-onnx
pipeline_tag: automatic-speech-recognition
tags: [streaming, transducer, onnx, {tags}]
---
"""

# Of the speech packs that a run can name, by the name it has there.
LICENCES = {
    "synthetic": "made by espeak-ng (GPL-3.0), which is no part of this folder",
    "speech_commands": "CC BY 4.0",
    "digits_fsdd": "CC BY-SA 4.0",
    "speechocean762": "free for any purpose",
    "librispeech_mini": "CC BY 4.0",
    "speech_to_intent": "Apache-2.0",
}
SHOWN = {"wer", "chunk_ms", "rtf", "load_ms", "peak_rss_mb"}  # in tables of their own
UNKNOWN_LICENCE = "not known here: that of whoever gave the recordings"


def write_card(info: BundleInfo, folder: Path, text: str | None = None) -> None:
    """Writes folder/README.md; `text` (Markdown) goes in front of the tables."""
    info = dataclasses.replace(info, folder=folder)
    parts = [
        FRONT_MATTER.format(tags=info.default_precision),
        f"# {info.name}\n",
        text.strip() + "\n" if text else "A streaming speech recogniser: a transducer as ONNX.\n",
        "## What it is\n",
        _table(("setting", "value"), _settings(info)),
        "## Word errors\n",
        describe_errors(info.measured.get("wer")),
        "## Size, speed and latency\n",
        _table(("file", "bytes"), _sizes(info, folder)),
        _table(("what", "value"), _speed(info)),
        describe_use(info),
        "## Quantisation and sparsity\n",
        describe_operators(info),
        _table(("network", "weights", "values", "bits", "form"), _layers(info)),
        "Every layer:\n",
        _table(("layer", "shape", "bits", "form", "sparsity", "pattern"), _each_layer(info)),
        "## Data and licences\n",
        describe_data(info),
    ]
    more = {key: value for key, value in info.measured.items() if key not in SHOWN}
    for title, values in (("Also measured", more), ("Provenance", info.provenance)):
        if values:
            parts += [f"## {title}\n", _table(("what", "value"), _flat(values))]
    (folder / CARD_FILE).write_text("\n".join(parts), encoding="utf-8")


def describe_errors(rates: Any) -> str:
    """A row for each set; `rates` as in report.json, {set: {"wer", "low", "high", "words"}}."""
    if rates in (None, {}):
        return "Not measured.\n"
    rates = rates if isinstance(rates, Mapping) else {"all": rates}
    rows: list[tuple[Any, ...]] = []
    for name, rate in rates.items():
        rate = rate if isinstance(rate, Mapping) else {"wer": rate}
        ends = [f"{100 * rate[end]:.2f}" for end in ("low", "high") if end in rate]
        row = name, f"{100 * rate['wer']:.2f}", " to ".join(ends), rate.get("words", "")
        rows.append(row)
    head = ("set", "WER %", "95 % interval", "words")
    return "Streaming, decoded from audio by the files of this folder.\n\n" + _table(head, rows)


def describe_operators(info: BundleInfo) -> str:
    """Which graphs need more than the standard operators, by the forms of their layers."""
    forms = {layer.get("form") for layer in info.layers}
    kinds = {layer.get("kind") for layer in info.layers}
    names = ["MatMulNBits"] * ("int4" in forms)
    names += ["DynamicQuantizeLSTM"] * ("lstm" in kinds and "int8" in forms)
    if name_form(info) == ".ort files":
        return (
            "The graphs are optimised for onnxruntime and use operators of its own, com.microsoft; "
            "required_operators_and_types.config lists all.\n"
        )
    if not names:
        return "All graphs use standard operators of opset 17 alone, IR 8.\n"
    return (
        f"{' and '.join(names)} are onnxruntime's own (com.microsoft), in every build of it but a "
        "minimal one; all else are standard operators of opset 17, IR 8.\n"
    )


def describe_data(info: BundleInfo) -> str:
    """What it learnt from, and under which licence that is."""
    names = info.provenance.get("data", [])
    names = names if isinstance(names, list) else [names]
    rows = [(n, LICENCES.get(str(n).split("/")[0], UNKNOWN_LICENCE)) for n in names]
    what = "The recordings are no part of this folder; their licences may ask for attribution.\n"
    if not rows:
        return "Nothing is recorded of the data it learnt from.\n"
    return what + "\n" + _table(("trained on", "licence"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(_cell(v) for v in line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _settings(info: BundleInfo) -> list[tuple[Any, ...]]:
    frame_ms = info.features.frame_shift_ms
    return [
        ("target", info.target),
        ("audio", f"{info.features.sample_rate} Hz, {info.features.num_mel_bins} mel bins"),
        ("chunk", f"{info.chunk_frames} frames = {info.chunk_frames * frame_ms:g} ms"),
        ("time stamps every", f"{info.frame_seconds * 1000:g} ms"),
        ("vocabulary", f"{info.vocab_size} with blank {info.blank_id}"),
        ("state of a stream", f"{sum(info.state_sizes) * 4} bytes, constant"),
        ("default precision", info.default_precision),
    ]


def _sizes(info: BundleInfo, folder: Path) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for precision in info.files:
        names = info.list_files(precision)
        sizes = [(folder / name).stat().st_size for name in names]
        rows += zip(names, sizes, strict=True)
        rows.append((f"{precision}, together", sum(sizes)))
    return rows


def _speed(info: BundleInfo) -> list[tuple[Any, ...]]:
    """A chunk must be heard before it is decoded: the least that text is late by."""
    chunk_ms = info.chunk_frames * info.features.frame_shift_ms
    rows: list[tuple[Any, ...]] = [("a chunk is heard in", f"{chunk_ms:g} ms")]
    measured = info.measured
    if isinstance(times := measured.get("chunk_ms"), Mapping):
        rows.append(
            ("decoded in, one thread", f"{times['p50']:.2f} ms, 95 % within {times['p95']:.2f} ms")
        )
    for key, name, unit in (
        ("rtf", "real-time factor", ""),
        ("load_ms", "loading", " ms"),
        ("peak_rss_mb", "memory, Python included", " MB"),
    ):
        if isinstance(value := measured.get(key), (int, float)):
            rows.append((name, f"{value:.3g}{unit}"))
    return rows if len(rows) > 1 else [*rows, ("speed", "not measured")]


def _each_layer(info: BundleInfo) -> list[tuple[Any, ...]]:
    return [
        (
            layer["name"],
            " x ".join(map(str, layer["shape"])),
            layer["bits"],
            layer.get("form", ""),
            f"{layer.get('sparsity', 0.0):.3g}",
            layer.get("pattern", "dense"),
        )
        for layer in info.layers
    ]


def _layers(info: BundleInfo) -> list[tuple[Any, ...]]:
    """One row for each network, number of bits and form."""
    weights: Counter[tuple[str, int, str]] = Counter()
    values: Counter[tuple[str, int, str]] = Counter()
    for layer in info.layers:
        key = (layer["name"].partition(".")[0], layer["bits"], layer.get("form", ""))
        weights[key] += 1
        values[key] += math.prod(layer["shape"])
    return [(key[0], weights[key], values[key], *key[1:]) for key in weights]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, value if isinstance(value, str) else json.dumps(value)))
    return rows
