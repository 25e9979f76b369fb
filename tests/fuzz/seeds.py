"""Starts atheris on a function of bytes, from inputs that already reach far."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def fuzz(atheris: Any, target: Callable[[bytes], object], seeds: Sequence[bytes]) -> None:
    """Runs until libFuzzer's options (-max_total_time, -runs) say stop, or until a finding."""
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds):
            (Path(folder) / str(number)).write_bytes(data)
        atheris.Setup([*sys.argv, folder], target)
        atheris.Fuzz()
