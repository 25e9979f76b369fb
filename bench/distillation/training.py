"""One cell, one seed: train the student, decode the test set, write what it heard.

    OUT/cells/NAME-SEED/   checkpoint.pt log.jsonl while it trains, result.json when it is done

Everything a cell shares with others (features, teachers, targets, first weights) is on disk before
the first cell starts, so that cells run side by side.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import kaldialign
import torch

from compress.atomic import write_json
from compress.checkpoint import load_model
from compress.curriculum import CurriculumStage, Phase
from compress.data.batches import BatchSampler, Source
from compress.data.cuts import read_data
from compress.distill.lessons import Lesson, collect_kinds, parse_distill
from compress.distill.tandem import CoLearning, Tandem
from compress.distill.targets.kind import Kind
from compress.distill.targets.store import TargetStore, store_targets
from compress.distill.teaching import Teaching
from compress.evaluate import decode_store
from compress.models.transducer import Transducer
from compress.shrink.stage import ShrinkStage
from compress.trainer import TrainSettings, train
from distillation.cells import CELLS, Cell
from distillation.data import Hearing, choose_cuts, plain_store, train_sources
from distillation.teachers import STUDENTS, sampler_of


@dataclass(frozen=True)
class Plan:
    """What all cells share. steps: of every cell; judged_on: `test`, or `dev` or `rest` to tune."""

    packs: Path
    out: Path
    hearing: Hearing
    steps: int
    seconds: float
    teachers: dict[str, Path]
    starts: dict[tuple[str, int], Path]
    lm: Path
    judged_on: str = "test"


def sources_of(plan: Plan, data: str) -> list[Source]:
    """Training features of a cell's data."""
    first, _, teacher = data.partition("+")
    sources = train_sources(first, choose_cuts(plan.packs, first), plan.packs, plan.hearing)
    if teacher:
        cuts: dict[str, list] = {}
        for cut in read_data(plan.out / "labels" / teacher / "cuts.jsonl.gz"):
            cuts.setdefault(cut.custom["data"], []).append(cut)
        sources += train_sources(f"more-{teacher}", cuts, plan.packs, plan.hearing)
    return sources


def lessons_of(plan: Plan, cell: Cell) -> list[Lesson]:
    methods = {
        name: {key: str(plan.lm) if value == "LM" else value for key, value in settings.items()}
        for name, settings in cell.methods.items()
    }
    return parse_distill(cell.distill.format(early=early_steps(plan)), methods)


def early_steps(plan: Plan) -> int:
    return plan.steps // 3


def targets_of(
    plan: Plan, cell: Cell, kinds: list[Kind], teacher: Transducer, sampler: BatchSampler
) -> TargetStore:
    """A folder for each teacher, data and kind, because several cells read it."""
    stores = {}
    for kind in kinds:
        settings = "-".join(str(value)[-8:] for value in vars(kind).values() if value)
        folder = plan.out / "targets" / f"{cell.teacher}-{cell.data}-{kind.name}-{settings}"
        stores |= store_targets(folder, [kind], teacher, sampler).kinds
    return TargetStore(teacher, stores)


def prepare_targets(plan: Plan, names: list[str]) -> None:
    """Run the teacher for cells of one teacher and data, before any cell starts."""
    torch.set_num_threads(1)
    for cell in [CELLS[name] for name in names]:
        if cell.distill == "none" or cell.tandem != "none":
            continue
        teacher, tokenizer = load_model(plan.teachers[cell.teacher])
        sampler = sampler_of(sources_of(plan, cell.data), tokenizer, plan.seconds, 0)
        targets_of(plan, cell, collect_kinds(lessons_of(plan, cell)), teacher, sampler)


def build_stage(plan: Plan, cell: Cell, seed: int, sampler: BatchSampler) -> Any:
    teacher = load_model(plan.teachers[cell.teacher])[0]
    lessons = lessons_of(plan, cell)
    if cell.student == "pruned":
        teaching = None
        if lessons:
            targets = targets_of(plan, cell, collect_kinds(lessons), teacher, sampler)
            teaching = Teaching(lessons, targets)
        ramp = (0, plan.steps // 4, 10)
        return ShrinkStage(teacher, cell.sparsity, ramp, teaching=teaching)
    stage = start_student(plan, cell, seed)
    if cell.tandem != "none":
        tandem = Tandem(teacher, stage.student, cell.tandem)
        stage.model.teaching = CoLearning(lessons, tandem)
    elif lessons:
        targets = targets_of(plan, cell, collect_kinds(lessons), teacher, sampler)
        stage.model.teaching = Teaching(lessons, targets)
    stage.model.teaching.fit(stage.student.config, teacher.config)
    return stage


def start_student(plan: Plan, cell: Cell, seed: int) -> CurriculumStage:
    start, tokenizer = load_model(plan.starts[cell.family, seed])
    recipe = STUDENTS[cell.family]
    if cell.student == "offline":
        recipe = recipe.model_copy(update={"full_context": True})
    early = early_steps(plan)
    task = {"ctc": 0.1, "transducer": 1.0}
    phases = [Phase(steps=plan.steps, **task)]
    if cell.alone:
        phases = [Phase(steps=early), Phase(steps=plan.steps - early, **task)]
    stage = CurriculumStage(recipe.build(tokenizer.vocab_size), phases)
    stage.student.load_state_dict(start.state_dict())
    return stage


def run_cell(plan: Plan, name: str, seed: int) -> dict[str, Any]:
    """Train, decode, and return errors and words of every utterance."""
    cell, folder = CELLS[name], plan.out / "cells" / f"{name}-{seed}"
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log, contextlib.redirect_stderr(log):
        tokenizer = load_model(plan.teachers[cell.teacher])[1]
        sampler = sampler_of(sources_of(plan, cell.data), tokenizer, plan.seconds, seed)
        stage = build_stage(plan, cell, seed, sampler)
        rate = 3e-3 if cell.student != "lstm" else 2e-3
        settings = TrainSettings(plan.steps, rate, warmup_steps=50, decay_from=0.4, seed=seed)
        train(stage, sampler, replace(settings, checkpoint_every=200), folder, name, resume=True)
        student = stage.student
        store = plain_store(plan.judged_on, choose_cuts(plan.packs, plan.judged_on))
        said, heard = decode_store(student, store, tokenizer)
    pairs = list(zip(map(str.split, said), map(str.split, heard), strict=True))
    content = {
        "cell": name,
        "seed": seed,
        "parameters": student.num_parameters,
        "data": [row.data for row in store.rows],
        "errors": [kaldialign.edit_distance(one, other)["total"] for one, other in pairs],
        "words": [len(one) for one, _ in pairs],
    }
    write_json(result, content)
    (folder / "checkpoint.pt").unlink()
    return content
