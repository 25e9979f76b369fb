"""README.md of a bundle: a model card with YAML front matter, built from what bundle.json says."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

USE = """## Use it

In Python, with nothing but numpy, onnxruntime and kaldi-native-fbank:

```python
import streaming

recognizer = streaming.open_bundle("{name}")
stream = recognizer.create_stream()
stream.accept(samples)  # float32 in [-1, 1], {sample_rate} Hz, as often as you like
print(stream.finish())
```

In sherpa-onnx (Python here; Android, iOS, C++, Go, Swift and WebAssembly take the same four files):

```python
import sherpa_onnx

recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
    tokens="{name}/tokens.txt",
    encoder="{name}/{encoder}",
    decoder="{name}/{decoder}",
    joiner="{name}/{joiner}",
    feature_dim={num_mel_bins},
    num_threads=1,
)
```

    sherpa-onnx --tokens={name}/tokens.txt --encoder={name}/{encoder} \\
        --decoder={name}/{decoder} --joiner={name}/{joiner} speech.wav
"""


def write_card(info: BundleInfo, folder: Path, text: str | None = None) -> None:
    """Writes folder/README.md; `text` (Markdown) goes in front of the tables."""
    files = info.files[info.default_precision]
    parts = [
        FRONT_MATTER.format(tags=info.default_precision),
        f"# {info.name}\n",
        text.strip() + "\n" if text else "A streaming speech recogniser: a transducer as ONNX.\n",
        "## What it is\n",
        _table(("setting", "value"), _settings(info)),
        "## Files\n",
        _table(("file", "bytes"), _sizes(info, folder)),
        USE.format(
            name=info.name,
            sample_rate=info.features.sample_rate,
            num_mel_bins=info.features.num_mel_bins,
            **files,
        ),
        "## Layers\n",
        _table(("network", "weights", "values", "bits", "form"), _layers(info)),
    ]
    for title, values in (("Measured", info.measured), ("Provenance", info.provenance)):
        if values:
            parts += [f"## {title}\n", _table(("what", "value"), _flat(values))]
    (folder / CARD_FILE).write_text("\n".join(parts), encoding="utf-8")


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
