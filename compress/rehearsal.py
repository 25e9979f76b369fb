"""A few real training steps on made-up speech tell how long a run takes, and how much memory.

seconds = sum over steps of dense + (final - dense) * sparsity at the step / final sparsity
          + prunings * seconds of one + steps with rounding * seconds of one (--quantize qat)
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from compress.config import RunConfig
from compress.curriculum import CurriculumStage
from compress.data.batches import Source
from compress.data.store import FRAME_SECONDS, FeatureStore, Row
from compress.pipeline import build_stage
from compress.quantize.stage import QuantizeStage
from compress.run import Run
from compress.shrink.schedule import pruning_steps, sparsity_at
from compress.shrink.stage import ShrinkStage
from compress.trainer import Stage, TrainSettings, build_optimizer, run_step

UTTERANCE_FRAMES = 200  # commands and the synthetic speech have 1.9 s
TEXT = "turn on the light"
STEPS = 3  # of a kind; the quickest counts, the first one also warms up


@dataclass(frozen=True)
class Rehearsed:
    """seconds: of all training steps. dense, final: of one step at either end. pruning: of one.

    rounding: of one step with rounding. peak_bytes: what this process held at most.
    """

    seconds: float
    dense: float
    final: float
    pruning: float
    prunings: int
    peak_bytes: int
    rounding: float = 0.0
    rounding_steps: int = 0


class MadeUpStore(FeatureStore):
    """Utterances of noise, enough for one batch, that are on no disk."""

    def __init__(self, num_utterances: int, num_mel_bins: int) -> None:
        self.num_mel_bins = num_mel_bins
        names = [f"noise-{number}" for number in range(num_utterances)]
        self.rows = [Row(name, TEXT, "nobody", "noise", 0, UTTERANCE_FRAMES) for name in names]

    @property
    def seconds(self) -> float:
        return len(self.rows) * UTTERANCE_FRAMES * FRAME_SECONDS

    def features(self, row: Row) -> np.ndarray:
        shape = row.num_frames, self.num_mel_bins
        return np.random.default_rng(0).normal(-6.0, 4.0, shape).astype(np.float32)

    def phones(self, row: Row) -> np.ndarray:
        return np.zeros(row.num_frames, np.uint8)


@dataclass
class Rehearsal(Run):
    """A run whose data are made up and whose sparsity is known."""

    sparsity: float = 0.0

    @cached_property
    def sources(self) -> list[Source]:
        frames = self.config.recipe.batches.seconds / FRAME_SECONDS
        num_mel_bins = self.teacher.encoder.num_mel_bins
        return [Source(MadeUpStore(max(1, int(frames / UTTERANCE_FRAMES)), num_mel_bins))]

    def result(self, stage: str) -> dict[str, Any]:
        assert stage == "fit"
        return {"sparsity": self.sparsity, "shares": {}}


def rehearse(config: RunConfig, sparsity: float) -> Rehearsed:
    """What the training of a run will take; making data and measuring come on top."""
    recipe = config.recipe.model_copy(update={"guard": None})  # it needs development speech
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        run = Rehearsal(config.model_copy(update={"recipe": recipe}), Path(folder), sparsity)
        stage = build_stage(run, recipe.lessons)
        practice = Practice(stage, run)
        if isinstance(stage, CurriculumStage):
            rehearsed = rehearse_phases(practice, stage)
        else:
            rehearsed = rehearse_ramp(practice, stage)
        if config.quantize == "qat":
            return add_rounding(rehearsed, stage, run)
        return rehearsed


class Practice:
    """Steps of one stage on the same batch again and again."""

    def __init__(self, stage: Stage, run: Run, settings: TrainSettings | None = None) -> None:
        self.stage = stage
        self.settings = settings or run.config.recipe.settings
        self.batch = next(run.sampler.from_step(0))
        self.optimizer = build_optimizer(stage.model, self.settings)
        stage.model.train()

    def step(self, step: int) -> float:
        """Seconds of one step."""
        started = time.perf_counter()
        run_step(self.stage, self.optimizer, self.batch, step, self.settings)
        return time.perf_counter() - started

    def quickest(self, step: int) -> float:
        return min(self.step(step) for _ in range(STEPS))


def rehearse_ramp(practice: Practice, stage: ShrinkStage) -> Rehearsed:
    """A dense step, one that prunes to the end, and one after it; the ramp lies between."""
    begin, end, every = stage.ramp
    stage.ramp = end, end, every
    dense = practice.quickest(end - 1)
    pruned = practice.step(end)
    final = practice.quickest(end + 1)
    prunings = len(pruning_steps(begin, end, every))
    pruning = max(0.0, pruned - final)
    num_steps = practice.settings.steps
    shares = [
        sparsity_at(step, begin, end, stage.sparsity, kind=stage.schedule)
        / max(stage.sparsity, 1e-9)
        for step in range(num_steps)
    ]
    seconds = num_steps * dense + (final - dense) * sum(shares) + prunings * pruning
    return Rehearsed(seconds, dense, final, pruning, prunings, peak_memory())


def rehearse_phases(practice: Practice, stage: CurriculumStage) -> Rehearsed:
    """A step of every phase of a new network."""
    first, times = 0, []
    for phase in stage.phases:
        times.append(practice.quickest(first))
        first += phase.steps
    seconds = sum(time * phase.steps for time, phase in zip(times, stage.phases, strict=True))
    return Rehearsed(seconds, times[0], times[-1], 0.0, 0, peak_memory())


def add_rounding(before: Rehearsed, stage: ShrinkStage | CurriculumStage, run: Run) -> Rehearsed:
    """The steps with rounding on top, of the student as the other stage left it."""
    settings = run.config.recipe.qat.settings(run.config.recipe.steps, run.config.recipe.seed)
    rounding = QuantizeStage(stage.student, stage.model.teaching, run.sampler)
    seconds = Practice(rounding, run, settings).quickest(0)
    return replace(
        before,
        seconds=before.seconds + settings.steps * seconds,
        peak_bytes=peak_memory(),
        rounding=seconds,
        rounding_steps=settings.steps,
    )


def peak_memory() -> int:
    """The most bytes that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in kB
