"""The learned ranges of a model folder, in ranges.json beside its weights.

{"format": "compress-ranges-1", "ranges": {"encoder.project": [-3.1, 2.9], ...}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.atomic import write_json
from compress.models.transducer import Transducer
from compress.quantize.ranges import Range, linear_layers
from streaming.errors import InputError

RANGES_FILE = "ranges.json"
FORMAT = "compress-ranges-1"


def save_ranges(ranges: Mapping[str, Range], folder: Path) -> None:
    content = {"format": FORMAT, "ranges": {layer: list(ends) for layer, ends in ranges.items()}}
    write_json(folder / RANGES_FILE, content)


def load_ranges(folder: Path, model: Transducer) -> dict[str, Range]:
    """layer -> low <= 0 and high >= 0, of every Linear layer of `model`.

    Raises InputError for a folder without the file, and for a file that is not whole.
    """
    path = folder / RANGES_FILE
    if not path.is_file():
        raise InputError(
            f"{folder} has no {RANGES_FILE}, which training with rounding leaves: make one with "
            "compress run --quantize qat, or export with --quantize static or int8"
        )
    ranges = read_ranges(path)
    wanted = linear_layers(model)
    foreign = sorted(ranges.keys() ^ wanted.keys())
    if foreign:
        where = "the file" if foreign[0] in ranges else "the model"
        raise InputError(
            f"{path}: only {where} has a layer {foreign[0]!r}: copy the folder again, whole"
        )
    return {layer: check_range(ends, layer, path) for layer, ends in ranges.items()}


def read_ranges(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not JSON or is cut short: copy it again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is not of format {FORMAT}: make it with this version")
    ranges = content.get("ranges")
    if not isinstance(ranges, dict):
        raise InputError(f"{path} holds no ranges: copy it again")
    return ranges


def check_range(ends: Any, layer: str, path: Path) -> Range:
    """Raises InputError for anything but two finite numbers with 0 between them."""
    numbers = isinstance(ends, list) and len(ends) == 2
    numbers = numbers and all(type(end) in (int, float) and math.isfinite(end) for end in ends)
    if not (numbers and ends[0] <= 0 <= ends[1]):
        raise InputError(
            f"{path}: {layer} has {ends!r}: a range is two finite numbers, low <= 0 <= high"
        )
    return float(ends[0]), float(ends[1])
