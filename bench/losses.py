"""Time and peak memory of the losses: ours against torchaudio's transducer loss and a full KL.

    python bench/losses.py [--quick]

Side by side, interleaved, forward and backward: (a) the student's transducer loss plus collapsed
lattice distillation with the sliced joiner, (b) torchaudio.functional.rnnt_loss plus a Kullback-
Leibler divergence over the full (B, T, U+1, V) softmaxes. Each runs in a process of its own, so
that peak memory is its own. B=8, T=200, U=40.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from pathlib import Path

import torch
import torchaudio
from torch import nn

from compress.data.batches import Batch
from compress.distill.lattice import lattice
from compress.distill.view import View
from compress.losses.joint import joint_log_probs
from compress.losses.rnnt import transducer_loss

B, T, U, J = 8, 200, 40, 256
RESULTS = Path(__file__).parent / "results" / "losses.json"


def build_inputs(vocab_size: int):
    torch.manual_seed(0)
    student = [torch.randn(B, n, J, requires_grad=True) for n in (T, U + 1)]
    teacher = [torch.randn(B, n, J) for n in (T, U + 1)]
    outputs = nn.Linear(J, vocab_size), nn.Linear(J, vocab_size)
    targets = torch.randint(1, vocab_size, (B, U))
    return student, teacher, outputs, targets, torch.full((B,), T), torch.full((B,), U)


def ours(student, teacher, outputs, targets, frames, labels) -> None:
    batch = Batch(None, None, targets, labels, None, [])
    view = View(frames, *joint_log_probs(*student, outputs[0], targets))
    with torch.no_grad():
        other = View(frames, *joint_log_probs(*teacher, outputs[1], targets))
    loss = transducer_loss(view.log_blank, view.log_emit, frames, labels).mean()
    (loss + lattice(view, other, batch)).backward()


def theirs(student, teacher, outputs, targets, frames, labels) -> None:
    logits = outputs[0](torch.tanh(student[0].unsqueeze(2) + student[1].unsqueeze(1)))
    with torch.no_grad():
        other = outputs[1](torch.tanh(teacher[0].unsqueeze(2) + teacher[1].unsqueeze(1)))
    loss = torchaudio.functional.rnnt_loss(
        logits, targets.int(), frames.int(), labels.int(), blank=0
    )
    divergence = nn.functional.kl_div(
        logits.log_softmax(-1), other.log_softmax(-1), reduction="sum", log_target=True
    )
    (loss + divergence / (B * T)).backward()


METHODS = {"ours": ours, "torchaudio + full KL": theirs}


def measure(method: str, vocab_size: int, repeats: int, queue) -> None:
    """Median seconds and the growth of peak memory in MB over what the inputs take."""
    torch.set_num_threads(2)
    inputs = build_inputs(vocab_size)
    before = peak_mb()
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        METHODS[method](*inputs)
        seconds.append(time.perf_counter() - start)
    queue.put((statistics.median(seconds[1:]), peak_mb() - before))


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1000 for line in status.splitlines() if "VmHWM" in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="V=256 and 1024 only, 2 repeats")
    arguments = parser.parse_args()
    sizes = [256, 1024] if arguments.quick else [256, 512, 1024, 2048, 4096]
    repeats = 2 if arguments.quick else 5
    context = multiprocessing.get_context("spawn")
    rows = []
    print(f"{'V':>6} {'method':>22} {'seconds':>8} {'MB':>8}")
    for vocab_size in sizes:
        figures = {}
        for method in METHODS:
            queue = context.Queue()
            process = context.Process(target=measure, args=(method, vocab_size, repeats, queue))
            process.start()
            figures[method] = queue.get()
            process.join()
            print(
                f"{vocab_size:6} {method:>22} {figures[method][0]:8.3f} {figures[method][1]:8.0f}"
            )
        (our_s, our_mb), (their_s, their_mb) = figures.values()
        ratios = {"time_ratio": our_s / their_s, "memory_ratio": our_mb / their_mb}
        rows.append({"V": vocab_size, "B": B, "T": T, "U": U, **ratios})
    if not arguments.quick:
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
