"""How much is trained: `short` is what one core does in two hours, `full` in seven and more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.config import TrainRecipe, read_recipe

PACKS = ("speech_commands", "digits_fsdd", "speechocean762")
SENTENCES = "speechocean762"  # read sentences; the two others are single words
RECIPE = Path(__file__).with_name("teacher.yaml")


@dataclass(frozen=True)
class Plan:
    """What all chains share.

    levels: shares of the teacher removed, in the order of a chain; steps: of each of them.
    teacher_steps: of the built-in teacher on all packs, at twice the audio a step.
    start_steps: phones, CTC and transducer of a small student's first weights, on `synthetic`
    utterances. seconds: audio of a step. every: steps between two prunings. copies: of every
    training utterance, each augmented differently. sentences_share: how often speechocean762 is
    drawn, 1 for each other pack; sentences_judged: of its utterances at most.
    """

    packs: Path
    out: Path
    levels: tuple[float, ...]
    steps: tuple[int, ...]
    teacher_steps: int
    start_steps: tuple[int, int, int]
    synthetic: int
    seconds: float
    every: int
    copies: int
    sentences_share: float
    sentences_judged: int
    judged_on: str = "test"

    def cell(self, pattern: str, distilled: bool, seed: int) -> Path:
        how = "distilled" if distilled else "alone"
        return self.out / "cells" / f"{pattern.replace(':', '-')}-{how}-{seed}"

    @property
    def teacher_recipe(self) -> TrainRecipe:
        """teacher.yaml at this plan's size."""
        recipe = read_recipe(str(RECIPE), TrainRecipe)
        steps = self.teacher_steps
        phase = recipe.phases[0].model_copy(update={"steps": steps})
        pace = recipe.train.model_copy(update={"warmup_steps": steps // 15})
        batch = recipe.batch.model_copy(update={"seconds": 2 * self.seconds})
        real = recipe.real.model_copy(update={"copies": self.copies})
        parts = {"phases": [phase], "train": pace, "batch": batch, "real": real}
        return recipe.model_copy(update=parts)


LEVELS = (0.6, 0.8, 0.9, 0.95)
PLANS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "levels": (0.6, 0.9),
        "steps": (40, 40),
        "teacher_steps": 60,
        "start_steps": (100, 60, 40),
        "synthetic": 1000,
        "seconds": 10.0,
        "every": 10,
        "copies": 1,
        "sentences_share": 0.25,
        "sentences_judged": 60,
    },
    "short": {
        "levels": LEVELS,
        "steps": (60, 60, 200, 300),
        "teacher_steps": 240,
        "start_steps": (150, 100, 100),
        "synthetic": 1000,
        "seconds": 10.0,
        "every": 10,
        "copies": 1,
        "sentences_share": 0.25,
        "sentences_judged": 145,
    },
    "full": {
        "levels": LEVELS,
        "steps": (300, 300, 1500, 900),
        "teacher_steps": 1500,
        "start_steps": (1200, 800, 500),
        "synthetic": 6000,
        "seconds": 20.0,
        "every": 30,
        "copies": 2,
        "sentences_share": 1.0,
        "sentences_judged": 580,
    },
}
