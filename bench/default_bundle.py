"""The built-in teacher as a bundle: what a benchmark runs when it is given none."""

from __future__ import annotations

from pathlib import Path

from compress.bundle import export_model
from compress.cli_options import DEMO_TEACHER

FOLDER = Path(__file__).parents[1] / "runs" / "teacher"


def teacher_bundle() -> Path:
    """runs/teacher, fp32 and int8; made by the first benchmark that asks, in half a minute."""
    if not FOLDER.exists():
        FOLDER.parent.mkdir(exist_ok=True)
        export_model(DEMO_TEACHER, FOLDER)
    return FOLDER
