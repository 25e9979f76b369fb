"""The training loop: one stage of work, its optimiser, its log, its checkpoints.

    stage.loss(batch, step) -> loss, parts      what is minimised, and what of it is logged
    stage.after_step(step, optimizer)           what changes between steps: pruning, validation

Random numbers depend on (seed, step) alone, so a run that was killed and resumed at a checkpoint
is the run that was never killed.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from compress.atomic import write_atomically
from compress.checkpoint import load_state, save_state
from compress.data.batches import Batch, BatchSampler
from compress.interrupts import defer_interrupts
from compress.precision import Bfloat16, choose
from compress.progress import progress_bar, say
from streaming.errors import InputError


@dataclass(frozen=True)
class TrainSettings:
    """Steps and the optimiser; the rate rises for `warmup_steps`, then falls to its final share.

    The fall is a half cosine from `decay_from` (a share of all steps) on. bfloat16: autocast;
    auto where that is faster (precision.py).
    """

    steps: int
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    decay_from: float = 0.3
    final_rate_share: float = 0.02
    weight_decay: float = 0.01
    clip_norm: float = 2.0
    bfloat16: Bfloat16 = "auto"
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 250


class Stage(Protocol):
    """What differs between training a teacher and shrinking a student."""

    @property
    def model(self) -> nn.Module: ...

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]: ...

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


def rate_at(step: int, settings: TrainSettings) -> float:
    """Learning rate of step 0 .. steps - 1."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    start = settings.decay_from * settings.steps
    progress = min(1.0, max(0.0, (step - start) / max(1.0, settings.steps - start)))
    fall = 0.5 * (1 + math.cos(math.pi * progress))
    final = settings.final_rate_share
    return settings.learning_rate * warm * (final + (1 - final) * fall)


def build_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW; matrices decay, biases and norms do not.

    A module with a `rate_share` (a trained teacher that learns along) gets that share of the rate.
    """
    shares: dict[int, float] = {
        id(parameter): float(cast("float", module.rate_share))
        for module in model.modules()
        if hasattr(module, "rate_share")
        for parameter in module.parameters()
    }
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        key = shares.get(id(parameter), 1.0), parameter.ndim > 1
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": settings.weight_decay if decays else 0.0,
                "rate_share": share,
            }
            for (share, decays), parameters in sorted(groups.items(), key=lambda item: item[0])[
                ::-1
            ]
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        fused=True,  # 2 instead of 6 ms a step for the 120 tensors of a small Conformer on a CPU
    )


class Log:
    """log.jsonl of a stage: a line every few steps; lines after a resumed step are dropped."""

    def __init__(self, path: Path, first_step: int) -> None:
        kept = [row for row in read_log(path) if row["step"] <= first_step]
        lines = "".join(json.dumps(row) + "\n" for row in kept)
        write_atomically(path, lambda growing: growing.write_text(lines))
        self.path = path

    def write(self, row: dict[str, float]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a log.jsonl, without a last line that a kill cut short."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def train(
    stage: Stage,
    sampler: BatchSampler,
    settings: TrainSettings,
    folder: Path,
    description: str,
    resume: bool = False,
) -> None:
    """Run the stage for settings.steps; checkpoint.pt and log.jsonl in `folder`.

    With `resume` it goes on from checkpoint.pt if there is one, in the precision it was begun in.
    Ctrl-C ends the step, saves and raises KeyboardInterrupt. Raises InputError when the loss is not
    finite, naming the utterances.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    step, seconds = 0, 0.0
    state = load_state(checkpoint) if resume and checkpoint.exists() else None
    if state:
        stage.load_state(state["stage"])
        step, seconds = state["step"], state["seconds"]
    settings = settle_precision(stage, settings, description, state)
    optimizer = build_optimizer(stage.model, settings)
    if state:
        optimizer.load_state_dict(state["optimizer"])
    log = Log(folder / "log.jsonl", step)
    started = time.monotonic() - seconds
    batches = sampler.from_step(step)

    def save() -> None:
        content = {
            "step": step,
            "seconds": time.monotonic() - started,
            "stage": stage.state(),
            "optimizer": optimizer.state_dict(),
            "bfloat16": settings.bfloat16,
        }
        save_state(checkpoint, content)

    stage.model.train()
    try:
        with progress_bar() as bar, defer_interrupts() as interrupted:
            task = bar.add_task(description, total=settings.steps, completed=step, note="")
            while step < settings.steps:
                row = run_step(stage, optimizer, next(batches), step, settings)
                step += 1
                bar.update(task, completed=step, note=describe(row))
                if step % settings.log_every == 0 or step == settings.steps:
                    log.write({"step": step, "seconds": time.monotonic() - started, **row})
                stop = interrupted()
                if step % settings.checkpoint_every == 0 or step == settings.steps or stop:
                    save()
                if stop:
                    raise KeyboardInterrupt
    finally:
        stage.model.eval()


def settle_precision(
    stage: Stage, settings: TrainSettings, description: str, state: dict[str, Any] | None
) -> TrainSettings:
    """The settings with true or false for auto; a line says which, and why. state: a checkpoint."""
    stored = state.get("bfloat16", True) if state else None  # it was true before it was stored
    choice = choose(settings.bfloat16, device_of(stage), stored)
    say(f"  {description} in {choice}")
    return replace(settings, bfloat16=choice.bfloat16)


def device_of(stage: Stage) -> str:
    return next(stage.model.parameters()).device.type


def run_step(
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    step: int,
    settings: TrainSettings,
) -> dict[str, float]:
    """One update; returns what the log should hold."""
    torch.manual_seed(settings.seed * 1_000_003 + step)
    for group in optimizer.param_groups:
        group["lr"] = rate_at(step, settings) * group["rate_share"]
    device = device_of(stage)
    bfloat16 = choose(settings.bfloat16, device).bfloat16
    with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
        loss, parts = stage.loss(batch, step)
    check_finite("loss", loss, step, batch)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(stage.model.parameters(), settings.clip_norm)
    check_finite("gradient", norm, step, batch)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    row = {"loss": loss.item(), **parts, "norm": float(norm), "rate": rate_at(step, settings)}
    return row | stage.after_step(step, optimizer)


def check_finite(name: str, value: Tensor, step: int, batch: Batch) -> None:
    """Stop before the weights are spoilt. Raises InputError naming the step and the utterances."""
    if torch.isfinite(value):
        return
    names = ", ".join(row.id for row in batch.rows[:5])
    raise InputError(
        f"the {name} is {value.item()} at step {step} (utterances {names}, ...): the last good "
        "checkpoint is kept; look at these utterances or lower the learning rate, then --resume"
    )


def describe(row: dict[str, float]) -> str:
    """The figures that fit behind a progress bar of 80 columns."""
    shown = [f"{name} {row[name]:.2f}" for name in ("loss", "sparsity") if name in row]
    return " ".join(shown)
