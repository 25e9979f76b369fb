"""What a word error rate on development speech means for a student that is being pruned.

While the ramp runs, a student within budget is kept; one beyond it goes back to the last that was
kept, and the rest of the ramp takes longer. After the ramp the best student of the final size is
kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from streaming.errors import InputError

Ramp: TypeAlias = tuple[int, int, int]  # first step, last step, steps between prunings
Verdict: TypeAlias = Literal["keep", "go back", "resign", "go on"]


@dataclass(frozen=True)
class GuardSettings:
    """When to look, and how much may be lost.

    every: steps between checks. max_increase: how far the WER may lie above the teacher's while
        the ramp runs, 0.02 = 2 points; None never goes back and only keeps the best.
    num_utterances: of development speech, decoded in a check.
    stretch: how much longer the rest of the ramp takes after going back; at the same pace it
        would meet the same wall.
    latest_end: share of all steps by which a stretched ramp ends; where the rest does not fit
        before it, the run goes on over budget.
    """

    every: int = 100
    max_increase: float | None = None
    num_utterances: int = 100
    stretch: float = 1.5
    latest_end: float = 0.8

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"steps between checks are at least 1; got {self.every}")
        if self.max_increase is not None and not 0 <= self.max_increase < 1:
            likely = f": did you mean {self.max_increase / 100:g}?" if self.max_increase > 0 else ""
            raise InputError(
                "the WER budget is a share of words above the teacher's, in [0, 1); got "
                f"{self.max_increase:g}{likely}"
            )
        if self.stretch < 1:
            raise InputError(f"a ramp can be stretched, not hurried; got {self.stretch:g}")

    def check(self, schedule: str) -> None:
        """Raises InputError for a ramp that cannot be stretched."""
        if schedule == "one-shot" and self.max_increase is not None:
            raise InputError(
                "a one-shot schedule has no steps to go back to: use cubic or linear, or no WER "
                "budget"
            )


@dataclass(frozen=True)
class Judge:
    """Decides what a check means; no model in sight.

    limit: the highest WER within budget. kept_step, kept_wer: of the student that is kept, None
    before the first; final: whether it has the final size. resigned: it no longer goes back.
    """

    limit: float | None
    num_steps: int
    settings: GuardSettings
    kept_step: int | None = None
    kept_wer: float = math.inf
    final: bool = False
    resigned: bool = False

    @property
    def last_end(self) -> int:
        return int(self.settings.latest_end * self.num_steps)

    def is_due(self, step: int, ramp: Ramp) -> bool:
        """The start is kept unmeasured; during a ramp without a budget nothing is to decide."""
        if self.limit is None and step <= ramp[1]:
            return False
        return step % self.settings.every == 0 or step == self.num_steps - 1

    def verdict(self, step: int, wer: float, ramp: Ramp) -> Verdict:
        """What to do with the student of `step`, seen before it is pruned in that step."""
        if step > ramp[1]:
            return "keep" if not self.final or wer <= self.kept_wer else "go on"
        assert self.limit is not None
        if wer <= self.limit:
            return "keep"
        if self.resigned or self.kept_step is None:
            return "go on"
        return "go back" if step + self.rest(ramp) <= self.last_end else "resign"

    def rest(self, ramp: Ramp) -> int:
        """Steps of the ramp that the kept student still had before it."""
        assert self.kept_step is not None
        return ramp[1] - max(self.kept_step, ramp[0])

    def keep(self, step: int, wer: float, ramp: Ramp) -> Judge:
        return replace(self, kept_step=step, kept_wer=wer, final=step > ramp[1])

    def stretched(self, step: int, ramp: Ramp) -> Ramp:
        """The ramp from the kept student on, when it is put back in `step`.

        >>> judge = Judge(0.1, 1000, GuardSettings(stretch=1.5), kept_step=200)
        >>> judge.stretched(300, (0, 400, 10))  # 200 steps were left, now it is 300
        (300, 600, 10)
        """
        end = step + math.ceil(self.settings.stretch * self.rest(ramp))
        return step, min(end, self.last_end), ramp[2]
