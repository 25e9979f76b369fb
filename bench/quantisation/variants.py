"""The models of the benchmark, each in every form, as bundles on disk.

OUT/run/              compress run --sparsity 0.9 --quantize qat on two real packs
OUT/wounded/          its student with outliers (wound.py)
OUT/MODEL/VARIANT/    the bundle of a model in a form; every one holds the fp32 graphs too
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from compress.bundle import export_model
from compress.cli_options import DEMO_TEACHER, build_run_config
from compress.pipeline import run_pipeline
from compress.quantize.files import RANGES_FILE
from export.quantize import Method
from quantisation.wound import make_wounded

LEARNT = ("speech_commands", "digits_fsdd")  # packs that teacher and student know
JUDGED = ("speech_commands", "digits_fsdd", "speechocean762", "librispeech_mini")
EVALUATION = "speech_to_intent"  # has a dev split alone
VARIANTS: tuple[Method, ...] = ("int8", "static", "int4", "qat", "auto")


@dataclass(frozen=True)
class Plan:
    """steps: of the student's training. num: utterances of each set that are judged, at most."""

    packs: Path
    out: Path
    steps: int
    num: int
    quick: bool

    @property
    def data(self) -> list[str]:
        return [str(self.packs / pack) for pack in LEARNT]

    @property
    def sets(self) -> dict[str, str]:
        """pack -> the split it is judged by."""
        if self.quick:
            return dict.fromkeys(LEARNT, "test")
        return dict.fromkeys(JUDGED, "test") | {EVALUATION: "dev"}


def make_models(plan: Plan) -> dict[str, Path]:
    """name -> model folder: the built-in teacher; a student of a tenth of its size whose training
    ended with rounding; and the student before that, with outliers in it."""
    config = build_run_config(
        DEMO_TEACHER,
        "run",
        plan.data,
        plan.packs / "noise",
        changes={"sparsity": 0.9, "steps": plan.steps},
        quantize="qat",
    )
    run = plan.out / "run"
    run_pipeline(config, run, resume=run.exists())
    return {
        "teacher, 5.5 M": DEMO_TEACHER,
        "student, 0.55 M": run / "quantized",
        "wounded, 0.55 M": make_wounded(run / "student", plan.out / "wounded"),
    }


def make_variants(
    plan: Plan, name: str, model: Path, only: Collection[str] = VARIANTS
) -> dict[str, Path]:
    """variant -> bundle; a model whose training knew nothing of rounding has no qat."""
    bundles = {}
    for variant in (variant for variant in VARIANTS if variant in only):
        if variant == "qat" and not (model / RANGES_FILE).exists():
            continue
        bundles[variant] = plan.out / name.partition(",")[0] / variant
        if not bundles[variant].exists():
            export_model(model, bundles[variant], variant, data=plan.data)
    return bundles
