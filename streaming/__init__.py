"""Streaming speech recognition from a bundle: numpy, onnxruntime and kaldi-native-fbank only."""

from pathlib import Path

from streaming.bundle import read_bundle
from streaming.errors import InputError
from streaming.gate import GateSettings
from streaming.recognizer import Recognizer
from streaming.result import Result
from streaming.stream import Stream

__all__ = ["GateSettings", "InputError", "Recognizer", "Result", "Stream", "open_bundle"]


def open_bundle(
    path: Path | str,
    precision: str | None = None,
    num_threads: int = 1,
    gate: GateSettings | None = None,
) -> Recognizer:
    """Reads and checks a bundle folder and loads its graphs.

    precision: "fp32" or a quantised one of the bundle; None takes the bundle's default.
    gate: leaves silence undecoded, see streaming/gate.py.
    Raises InputError, one line that names the file and the fix.
    """
    return Recognizer(read_bundle(path), precision, num_threads, gate=gate)
