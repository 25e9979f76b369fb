"""Word errors of every pattern at every level, each with distillation and without.

    OUT/teacher/                     the built-in teacher, trained on with all three packs
        shares/PATTERN.json          what each layer loses, by the sensitivity of the teacher
        starts/LEVEL/                a small network that heard synthetic speech only
        cells/PATTERN-HOW-SEED/LEVEL/  model folder of the student, result.json when it is done

A chain goes through the levels, each beginning with the student of the one before; a small student
is new at each level and is trained as many steps as the chain has been by then.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import kaldialign
import torch

from compress.atomic import write_json
from compress.checkpoint import load_model, save_model
from compress.curriculum import CurriculumStage, Phase
from compress.data.augment import AugmentSettings
from compress.data.batches import BatchSampler, BatchSettings, Source
from compress.data.noise import Augmenter
from compress.data.sets import check_sources, real_store, spread, synthetic_store, train_store
from compress.data.tokenizer import Tokenizer
from compress.distill.lessons import parse_distill
from compress.distill.setup import build_teaching
from compress.evaluate import decode_store
from compress.shrink.candidate import cut_at_once
from compress.shrink.pruner import Cut
from compress.shrink.sensitivity import choose_batches, measure_sensitivity
from compress.shrink.shares import allocate, soften
from compress.shrink.stage import ShrinkStage
from compress.train import Training, train_recipe
from compress.trainer import TrainSettings, train
from shrinking.plan import PACKS, SENTENCES, Plan
from shrinking.table import DENSE

DEMO = Path(__file__).resolve().parents[2] / "compress" / "assets" / "demo-teacher"
DISTILL = "lattice=1.0"
# Chosen on development speech (bench/LOG.md): zeros want a slower pace than narrow layers.
RATES = {"channel": 3e-3, "block": 2e-3, "unstructured": 2e-3, "small": 3e-3}
RAMP = 0.3  # of the steps at each level
WARMUP = 30  # steps, or a quarter of a level that has fewer than 120


def make_teacher(plan: Plan) -> Path:
    """Trained once, killed or not."""
    out = plan.out / "teacher"
    if not (out / "config.json").exists():
        data = [str(plan.packs / pack) for pack in PACKS]
        training = Training(plan.teacher_recipe, data, plan.packs / "noise", out, None, DEMO)
        train_recipe(training, resume=True)
    return out


def judge_teacher(plan: Plan) -> None:
    """Its word errors, as a student's of which nothing is removed."""
    file = plan.out / "teacher" / "result.json"
    if not file.exists():
        torch.set_num_threads(1)
        teacher, tokenizer = load_model(plan.out / "teacher")
        heard = {pack: judge(plan, pack, teacher, tokenizer) for pack in PACKS}
        dense = {"pattern": DENSE, "sparsity": 0.0, "distilled": False, "seed": 0}
        write_json(file, dense | {"measured_sparsity": 0.0, "heard": heard})


def augmenter_of(plan: Plan) -> Augmenter:
    settings = AugmentSettings(noise_probability=0.5, room_probability=0.3)
    return Augmenter(plan.packs / "noise", settings)


def sampler_of(plan: Plan, tokenizer: Tokenizer, seed: int) -> BatchSampler:
    """The teacher's own training data."""
    hear = plan.teacher_recipe.real.model_dump(include={"copies", "joined", "words_range"})
    stores = [train_store(str(plan.packs / pack), augmenter_of(plan), 0, **hear) for pack in PACKS]
    settings = BatchSettings(seconds=plan.seconds)
    shares = [plan.sentences_share if pack == SENTENCES else 1.0 for pack in PACKS]
    sources = [Source(*one) for one in zip(stores, shares, strict=True)]
    check_sources(sources, tokenizer, settings.tail_frames)
    return BatchSampler(sources, tokenizer, settings, seed, augment=False)


def make_start(plan: Plan, level: float) -> Path:
    """First weights of a small student."""
    out = plan.out / "starts" / f"{level:g}"
    if not (out / "config.json").exists():
        torch.set_num_threads(1)
        teacher, tokenizer = load_model(plan.out / "teacher")
        synthetic = synthetic_store(plan.synthetic, "train", 1, augmenter_of(plan))
        weights = {"phone": 1.0}, {"phone": 0.3, "ctc": 1.0}, {"ctc": 0.1, "transducer": 1.0}
        pairs = zip(plan.start_steps, weights, strict=True)
        phases = [Phase(steps=steps, **each) for steps, each in pairs]
        student = cut_at_once(teacher, Cut("small"), level)
        stage = CurriculumStage(student.config, phases)
        stage.student.load_state_dict(student.state_dict())
        settings = BatchSettings(seconds=plan.seconds)
        sampler = BatchSampler([Source(synthetic)], tokenizer, settings, 0, augment=False)
        pace = TrainSettings(sum(plan.start_steps), 3e-3, warmup_steps=50, decay_from=0.8)
        pace = replace(pace, final_rate_share=0.3)
        train(stage, sampler, pace, out / "training", out.name, resume=True)
        save_model(stage.student, out, tokenizer, {})
    return out


def store_shares(plan: Plan, pattern: str) -> None:
    """How much each layer loses at each level, by what that costs the teacher on its own data."""
    file = plan.out / "shares" / f"{pattern.replace(':', '-')}.json"
    if file.exists() or pattern in ("channel", "small"):
        return
    torch.set_num_threads(1)
    teacher, tokenizer = load_model(plan.out / "teacher")
    batches = choose_batches(sampler_of(plan, tokenizer, 0))
    sensitivity = measure_sensitivity(teacher, Cut(pattern), batches)
    shares = {f"{level:g}": soften(allocate(sensitivity, level)) for level in plan.levels}
    write_json(file, shares)


def read_shares(plan: Plan, pattern: str, level: float) -> dict[str, float]:
    file = plan.out / "shares" / f"{pattern.replace(':', '-')}.json"
    return json.loads(file.read_text())[f"{level:g}"] if file.exists() else {}


def store_targets(plan: Plan) -> None:
    """What the teacher says of the training data, before any chain reads it."""
    model = load_model(plan.out / "teacher")
    sampler = sampler_of(plan, model[1], 0)
    build_teaching(parse_distill(DISTILL), "none", model, model, sampler, plan.out / "targets")


def build_stage(
    plan: Plan, pattern: str, level: float, start: Path, distilled: bool, seed: int, steps: int
):
    model = load_model(plan.out / "teacher")
    first = load_model(start)[0]
    sampler = sampler_of(plan, model[1], seed)
    lessons = parse_distill(DISTILL if distilled else "none")
    student = (first, model[1]) if pattern == "small" else model
    teaching = build_teaching(lessons, "none", model, student, sampler, plan.out / "targets")
    if pattern != "small":
        ramp = (0, round(RAMP * steps), plan.every)
        cut = Cut(pattern, shares=read_shares(plan, pattern, level))
        return ShrinkStage(model[0], level, ramp, "cubic", teaching, cut, first), sampler
    stage = CurriculumStage(first.config, [Phase(steps=1, ctc=0.1, transducer=1.0)])
    stage.student.load_state_dict(first.state_dict())
    stage.model.teaching = teaching
    return stage, sampler


def run_chain(plan: Plan, pattern: str, distilled: bool, seed: int) -> None:
    """Train through all levels that are not there yet."""
    torch.set_num_threads(1)
    cell = plan.cell(pattern, distilled, seed)
    start = plan.out / "teacher"
    for number, level in enumerate(plan.levels):
        folder = cell / f"{level:g}"
        folder.mkdir(parents=True, exist_ok=True)
        steps = plan.steps[number]
        if pattern == "small":
            start, steps = plan.out / "starts" / f"{level:g}", sum(plan.steps[: number + 1])
        if not (folder / "result.json").exists():
            with (cell / "log.txt").open("a") as log, contextlib.redirect_stderr(log):
                run_level(plan, pattern, level, start, distilled, seed, steps, folder)
        start = folder


def read_results(plan: Plan, patterns: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """Of the teacher and every student that is there; rows of a table may have fewer seeds."""
    files = [*plan.out.glob("teacher/result.json"), *plan.out.glob("cells/*/*/result.json")]
    results = [json.loads(file.read_text()) for file in files]
    wanted = (DENSE, *patterns)
    return [one for one in results if one["pattern"] in wanted and one["seed"] < seeds]


def run_level(
    plan: Plan,
    pattern: str,
    level: float,
    start: Path,
    distilled: bool,
    seed: int,
    steps: int,
    folder: Path,
) -> None:
    stage, sampler = build_stage(plan, pattern, level, start, distilled, seed, steps)
    rate = RATES[pattern.partition(":")[0]]
    warmup = min(WARMUP, steps // 4)
    pace = TrainSettings(steps, rate, warmup_steps=warmup, decay_from=0.4, seed=seed)
    train(stage, sampler, replace(pace, checkpoint_every=100), folder, folder.name, resume=True)
    student, tokenizer = stage.student.eval(), sampler.tokenizer
    save_model(student, folder, tokenizer, {"pattern": pattern, "level": level, "seed": seed})
    heard = {pack: judge(plan, pack, student, tokenizer) for pack in PACKS}
    teacher = load_model(plan.out / "teacher")[0]
    result = {
        "pattern": pattern,
        "sparsity": level,
        "distilled": distilled,
        "seed": seed,
        "measured_sparsity": 1 - student.num_kept / teacher.num_parameters,
        "heard": heard,
    }
    write_json(folder / "result.json", result)
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def judge(plan: Plan, pack: str, student, tokenizer: Tokenizer) -> dict[str, list[int]]:
    """Word errors and words of every utterance."""
    store = real_store(str(plan.packs / pack), plan.judged_on)
    if pack == SENTENCES:
        store.rows = list(spread(store.rows, plan.sentences_judged))
    said, heard = decode_store(student, store, tokenizer)
    pairs = list(zip(map(str.split, said), map(str.split, heard), strict=True))
    errors = [kaldialign.edit_distance(one, other)["total"] for one, other in pairs]
    return {"errors": errors, "words": [len(one) for one, _ in pairs]}
