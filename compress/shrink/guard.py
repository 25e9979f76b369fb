"""Best-checkpoint keeping, and going back when pruning cost too much (judge.py decides)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn

from compress.progress import say
from compress.shrink.judge import GuardSettings, Judge, Ramp
from compress.shrink.snapshot import Snapshot, copied, restore_, snapshot


class Guarded(Protocol):
    """What a guard needs of the stage that it watches."""

    ramp: Ramp
    first_sparsity: float

    @property
    def model(self) -> nn.Module: ...

    @property
    def pruner(self) -> Any: ...

    @property
    def reached(self) -> float: ...

    def rebuild(self, pruner: dict[str, Any]) -> None:
        """The model got other shapes: a pruner with this state for it, and evidence anew."""


class WerGuard:
    """Watches a stage from its `after_step`, before it prunes in that step.

    measure: WER on development speech of the student as it is. teacher_wer: the teacher's on the
    same. Costs the memory of one student with its moments, in checkpoints too.
    """

    def __init__(
        self,
        settings: GuardSettings,
        num_steps: int,
        teacher_wer: float,
        measure: Callable[[], float],
    ) -> None:
        increase = settings.max_increase
        limit = None if increase is None else teacher_wer + increase
        self.judge = Judge(limit, num_steps, settings)
        self.measure = measure
        self.kept: Snapshot | None = None

    def after_step(
        self, step: int, stage: Guarded, optimizer: torch.optim.Optimizer
    ) -> dict[str, float]:
        """Check if one is due, and keep or go back; what the log should hold.

        Going back changes the stage's ramp and first sparsity.
        """
        judge = self.judge
        if self.kept is None and judge.limit is not None:
            self._keep(step, math.inf, stage, optimizer)
            return {}
        if not judge.is_due(step, stage.ramp):
            return {}
        wer = self.measure()
        row = {"dev_wer": wer}
        verdict = judge.verdict(step, wer, stage.ramp)
        if verdict == "keep":
            self._keep(step, wer, stage, optimizer)
        elif verdict == "go back":
            row["back_to"] = float(self._go_back(step, wer, stage, optimizer))
        elif verdict == "resign":
            self.judge = replace(judge, resigned=True)
            say(
                f"  step {step}: {self._over(wer, stage)}, and too few steps are left to go back: "
                "the ramp goes on; allow a larger increase, or take more steps"
            )
        if step == judge.num_steps - 1 and self.judge.final and self.judge.kept_step != step:
            self._restore(stage, optimizer)
            say(f"  put back the student of step {self.judge.kept_step}, the best of this size")
            row["back_to"] = float(self.judge.kept_step or 0)
        return row

    def state(self) -> dict[str, Any]:
        judge = self.judge
        names = ("kept_step", "kept_wer", "final", "resigned")
        return {"judge": {name: getattr(judge, name) for name in names}, "kept": self.kept}

    def load_state(self, state: dict[str, Any]) -> None:
        self.judge = replace(self.judge, **state["judge"])
        self.kept = state["kept"]

    def _keep(
        self, step: int, wer: float, stage: Guarded, optimizer: torch.optim.Optimizer
    ) -> None:
        self.judge = self.judge.keep(step, wer, stage.ramp)
        self.kept = {
            "model": snapshot(stage.model, optimizer),
            "pruner": copied(stage.pruner.state()),
            "sparsity": stage.reached,
        }

    def _go_back(
        self, step: int, wer: float, stage: Guarded, optimizer: torch.optim.Optimizer
    ) -> int:
        assert self.kept and self.judge.kept_step is not None
        over = self._over(wer, stage)
        stage.ramp = self.judge.stretched(step, stage.ramp)
        stage.first_sparsity = self.kept["sparsity"]
        self._restore(stage, optimizer)
        say(
            f"  step {step}: {over}: back to the student of step {self.judge.kept_step}, sparsity "
            f"{stage.first_sparsity:.3f}; the ramp now ends at step {stage.ramp[1]}"
        )
        return self.judge.kept_step

    def _over(self, wer: float, stage: Guarded) -> str:
        limit = self.judge.limit or 0.0
        return (
            f"WER {100 * wer:.2f} % at sparsity {stage.reached:.3f} is over the budget of "
            f"{100 * limit:.2f} %"
        )

    def _restore(self, stage: Guarded, optimizer: torch.optim.Optimizer) -> None:
        assert self.kept
        restore_(stage.model, optimizer, self.kept["model"])
        stage.rebuild(copied(self.kept["pruner"]))
