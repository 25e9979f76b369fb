"""Training an LSTM language model: batches of random sentences, AdamW, resumable.

What a step draws depends on (seed, step) alone, as in compress/trainer.py, which this loop would
be if a batch here had audio.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.checkpoint import load_state, save_state
from compress.interrupts import defer_interrupts
from compress.lm.corpus import Sentences
from compress.lm.lstm import LstmNetwork
from compress.lm.model import BOUNDARY
from compress.progress import progress_bar
from compress.trainer import Log, TrainSettings, build_optimizer, rate_at
from streaming.errors import InputError

NO_EVENT = -100  # what cross_entropy skips


@dataclass(frozen=True)
class SentenceSampler:
    """Batches of sentences drawn with replacement; of a long one a window of `max_tokens`."""

    sentences: Sentences
    seed: int
    batch_sentences: int = 64
    max_tokens: int = 128

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and the events after them, both (B, U) int64; padding is NO_EVENT."""
        rng = np.random.default_rng([self.seed, step])
        spans = []
        for index in rng.integers(len(self.sentences), size=self.batch_sentences):
            span = self.sentences.span(index)
            start = int(rng.integers(max(0, len(span) - self.max_tokens - 1) + 1))
            spans.append(span[start : start + self.max_tokens + 1])
        shape = len(spans), max(map(len, spans)) - 1
        inputs, events = np.full(shape, BOUNDARY, np.int64), np.full(shape, NO_EVENT, np.int64)
        for row, span in enumerate(spans):
            inputs[row, : len(span) - 1] = span[:-1]
            events[row, : len(span) - 1] = span[1:]
        return torch.from_numpy(inputs), torch.from_numpy(events)


def train_network(
    network: LstmNetwork,
    sampler: SentenceSampler,
    settings: TrainSettings,
    folder: Path,
    resume: bool = False,
) -> float:
    """Run settings.steps steps; checkpoint.pt and log.jsonl in `folder`. Returns the seconds.

    Ctrl-C ends the step, saves and raises KeyboardInterrupt. Raises InputError when the loss is
    not finite.
    """
    checkpoint = folder / "checkpoint.pt"
    step, seconds = 0, 0.0
    optimizer = build_optimizer(network, settings)
    if resume and checkpoint.exists():
        state = load_state(checkpoint)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
    log = Log(folder / "log.jsonl", step)
    started = time.monotonic() - seconds
    network.train()
    with progress_bar() as bar, defer_interrupts() as interrupted:
        task = bar.add_task("training", total=settings.steps, completed=step, note="")
        while step < settings.steps:
            loss = run_step(network, optimizer, sampler.batch(step), step, settings)
            step += 1
            seconds = time.monotonic() - started
            bar.update(task, completed=step, note=f"loss {loss:.2f}")
            if step % settings.log_every == 0 or step == settings.steps:
                log.write({"step": step, "seconds": seconds, "loss": loss})
            stop = interrupted()
            if step % settings.checkpoint_every == 0 or step == settings.steps or stop:
                content = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                save_state(checkpoint, {**content, "step": step, "seconds": seconds})
            if stop:
                raise KeyboardInterrupt
    return seconds


def run_step(
    network: LstmNetwork,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    step: int,
    settings: TrainSettings,
) -> float:
    """One update; returns the mean nats an event."""
    torch.manual_seed(settings.seed * 1_000_003 + step)
    for group in optimizer.param_groups:
        group["lr"] = rate_at(step, settings)
    inputs, events = batch
    log_probs = network(inputs).flatten(0, 1)
    loss = F.nll_loss(log_probs, events.flatten(), ignore_index=NO_EVENT)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
    if not torch.isfinite(loss + norm):
        raise InputError(
            f"the loss is {loss.item()} at step {step}, its gradient {norm.item()}: the last good "
            "checkpoint is kept; choose a smaller --width or another --seed"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()
