"""Streaming speech recognition from a bundle: numpy, onnxruntime and kaldi-native-fbank only."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from streaming.bundle import read_bundle
from streaming.errors import InputError
from streaming.gate import GateSettings
from streaming.recognizer import Recognizer
from streaming.result import Result
from streaming.search import DecodingSettings
from streaming.stream import Stream
from streaming.words import Word

__all__ = [
    "DecodingSettings",
    "GateSettings",
    "InputError",
    "Recognizer",
    "Result",
    "Stream",
    "Word",
    "open_bundle",
]


def open_bundle(
    path: Path | str,
    precision: str | None = None,
    num_threads: int = 1,
    decoding: DecodingSettings | None = None,
    gate: GateSettings | None = None,
    **options: Any,
) -> Recognizer:
    """Reads and checks a bundle folder and loads its graphs.

    precision: "fp32" or a quantised one of the bundle; None takes the bundle's default.
    decoding, or options, its fields: open_bundle(path, decoding_method="modified_beam_search").
    gate: leaves silence undecoded, see streaming/gate.py.
    Raises InputError, one line that names the file and the fix.
    """
    decoding = replace(decoding or DecodingSettings(), **options)
    return Recognizer(read_bundle(path), precision, num_threads, decoding, gate=gate)
