"""Time and peak memory of the losses: ours against torchaudio's transducer loss and a full KL.

    python bench/losses.py [--quick]      10 minutes, or one, on two cores that do nothing else

Forward and backward at B=8, T=200, U=40, V=1024, and growth with V and T. Side by side:

    collapsed    the student's transducer loss + lattice distillation, joiners in slices
    full         the same with `lattice_full`, over all classes, in slices
    torchaudio   torchaudio.functional.rnnt_loss + a Kullback-Leibler divergence of (B, T, U+1, V)

The teacher's joiner is run by all three. Each method lives in a process of its own, so that VmHWM
is its own; the processes take turns, so that a busy machine slows all of them alike. Goals:
collapsed takes at most 1/8 of torchaudio's memory and 0.7 of its time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import torch
import torchaudio
from matplotlib.figure import Figure
from torch import nn

from compress.data.batches import Batch
from compress.distill.lattice import Lattice
from compress.distill.lattice_full import LatticeFull
from compress.distill.view import View
from compress.losses.rnnt import transducer_loss
from compress.models.joiner import Joiner
from compress.report.pictures import LINE_COLOURS, STYLE

B, T, U, V, J = 8, 200, 40, 1024, 256
VOCABULARIES = [256, 512, 1024, 2048, 4096, 8192]
FRAMES = [100, 200, 400, 800]
TIME_GOAL, MEMORY_GOAL = 0.7, 1 / 8
LARGEST_MB = 10_000  # a case that would pass it is left out
RESULTS = Path(__file__).parent / "results"


def view_of(batch: Batch, num_frames: int, vocab_size: int) -> View:
    """A model whose encoder and predictor have just said something random."""
    num_utterances, num_labels = batch.targets.shape
    encoded = torch.randn(num_utterances, num_frames, J, requires_grad=True)
    predicted = torch.randn(num_utterances, num_labels + 1, J, requires_grad=True)
    predictor = SimpleNamespace(forward_sequence=lambda targets: predicted)
    model = SimpleNamespace(predictor=predictor, joiner=Joiner(J, vocab_size))
    lengths = torch.full((num_utterances,), num_frames)
    return View(model, batch, encoded, lengths)


def build_case(num_utterances: int, num_frames: int, num_labels: int, vocab_size: int):
    """Student and teacher on one batch."""
    torch.manual_seed(0)
    targets = torch.randint(1, vocab_size, (num_utterances, num_labels))
    lengths = torch.full((num_utterances,), num_labels)
    batch = Batch(None, None, targets, lengths, None, [])
    return view_of(batch, num_frames, vocab_size), view_of(batch, num_frames, vocab_size)


def sliced(method: Lattice | LatticeFull, student: View, teacher: View) -> torch.Tensor:
    batch = student.batch
    losses = transducer_loss(*student.moves, student.logit_lengths, batch.target_lengths)
    return losses.mean() + method.loss(student, teacher, batch)


def collapsed(student: View, teacher: View) -> torch.Tensor:
    with torch.no_grad():
        teacher.moves  # noqa: B018 (computed once and kept)
    return sliced(Lattice(), student, teacher)


def full(student: View, teacher: View) -> torch.Tensor:
    return sliced(LatticeFull(), student, teacher)


def whole(student: View, teacher: View) -> torch.Tensor:
    logits = whole_logits(student)
    with torch.no_grad():
        wanted = whole_logits(teacher).log_softmax(-1)
    targets, labels = student.batch.targets.int(), student.batch.target_lengths.int()
    loss = torchaudio.functional.rnnt_loss(
        logits, targets, student.logit_lengths.int(), labels, blank=0
    )
    divergence = nn.functional.kl_div(
        logits.log_softmax(-1), wanted, reduction="sum", log_target=True
    )
    return loss + divergence / wanted[..., 0].numel()


def whole_logits(view: View) -> torch.Tensor:
    hidden = torch.tanh(view.encoded.unsqueeze(2) + view.predicted.unsqueeze(1))
    return view.joiner.output(hidden)


METHODS = {"collapsed": collapsed, "full": full, "torchaudio": whole}


def serve(method: str, num_frames: int, vocab_size: int, pipe) -> None:
    """Times of one forward and backward for each request; at last the growth of peak MB."""
    step(METHODS[method], *build_case(1, 2, 1, vocab_size))  # libraries and threads
    student, teacher = build_case(B, num_frames, U, vocab_size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    before = peak_mb()
    while pipe.recv():
        pipe.send(step(METHODS[method], student, teacher))
    pipe.send(peak_mb() - before)


def step(method, student: View, teacher: View) -> tuple[float, float]:
    """Seconds by the clock, and of the processor: the machine may have other work."""
    start = time.perf_counter(), time.process_time()
    for view in (student, teacher):
        view.__dict__.pop("moves", None)
    student.encoded.grad = student.predicted.grad = None
    student.joiner.zero_grad()
    method(student, teacher).backward()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1000 for line in status.splitlines() if "VmHWM" in line)


def measure(methods: list[str], num_frames: int, vocab_size: int, rounds: int) -> dict:
    """By method: median times of the rounds after the first, and peak MB."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for method in methods:
        pipes[method], theirs = context.Pipe()
        process = context.Process(target=serve, args=(method, num_frames, vocab_size, theirs))
        process.start()
        theirs.close()
        processes.append(process)
    times: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    for _ in range(rounds + 1):
        for method, pipe in pipes.items():
            pipe.send(True)
            times[method].append(pipe.recv())
    found = {}
    for method, pipe in pipes.items():
        pipe.send(False)
        seconds, cpu_seconds = map(statistics.median, zip(*times[method][1:], strict=True))
        found[method] = {"seconds": seconds, "cpu_seconds": cpu_seconds, "mb": pipe.recv()}
    for process in processes:
        process.join()
    return found


def sweep(cases: list[tuple[int, int]], goal_rounds: int) -> list[dict]:
    """A row for each (T, V) and method, printed as it comes."""
    rows: list[dict] = []
    mb_per_logit = 0.0  # of torchaudio, from the case before
    print(f"{'T':>5} {'V':>5} {'method':>11} {'seconds':>8} {'of CPU':>7} {'MB':>6}")
    for num_frames, vocab_size in cases:
        logits = B * num_frames * (U + 1) * vocab_size
        methods = [name for name in METHODS if name != "torchaudio"]
        if mb_per_logit * logits <= LARGEST_MB:
            methods.append("torchaudio")
        else:
            print(f"{num_frames:5} {vocab_size:5} torchaudio: left out, would take more than 10 GB")
        rounds = goal_rounds if (num_frames, vocab_size) == (T, V) else 2
        for method, figures in measure(methods, num_frames, vocab_size, rounds).items():
            print(
                f"{num_frames:5} {vocab_size:5} {method:>11}"
                f" {figures['seconds']:8.3f} {figures['cpu_seconds']:7.3f} {figures['mb']:6.0f}",
                flush=True,
            )
            rows.append({"T": num_frames, "V": vocab_size, "method": method, **figures})
            if method == "torchaudio":
                mb_per_logit = figures["mb"] / logits
    return rows


def judge(rows: list[dict]) -> dict:
    """The two goals at T=200, V=1024."""
    case = {row["method"]: row for row in rows if (row["T"], row["V"]) == (T, V)}
    ours, theirs = case["collapsed"], case["torchaudio"]
    time_ratio, cpu_ratio, memory_ratio = (
        ours[unit] / theirs[unit] for unit in ("seconds", "cpu_seconds", "mb")
    )
    return {
        "time_ratio": round(time_ratio, 3),
        "cpu_ratio": round(cpu_ratio, 3),
        "memory_ratio": round(memory_ratio, 4),
        "time_goal": TIME_GOAL,
        "memory_goal": MEMORY_GOAL,
        "holds": time_ratio <= TIME_GOAL and memory_ratio <= MEMORY_GOAL,
    }


def draw(rows: list[dict]) -> Figure:
    """Seconds and MB over V and over T, a line a method, and the goals as dashes."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", sharey="row")
    for column, (axis, fixed, value) in enumerate((("V", "T", T), ("T", "V", V))):
        chosen = sorted((row for row in rows if row[fixed] == value), key=lambda row: row[axis])
        ticks = sorted({row[axis] for row in chosen})
        units = (("seconds", TIME_GOAL), ("mb", MEMORY_GOAL))
        for panel, (unit, goal) in zip(axes[:, column], units, strict=True):
            for method, colour in zip(METHODS, LINE_COLOURS, strict=False):
                line = [row for row in chosen if row["method"] == method]
                sizes, figures = [row[axis] for row in line], [row[unit] for row in line]
                panel.plot(sizes, figures, color=colour, marker="o", label=method)
            # The line drawn last is torchaudio's.
            panel.plot(sizes, [goal * one for one in figures], "--", color="#888888", label="goal")
            panel.set(xscale="log", yscale="log")
            panel.yaxis.set_major_formatter("{x:g}")
            panel.set_xticks(ticks, [str(tick) for tick in ticks])
            panel.minorticks_off()
            panel.grid(True)
        axes[0, column].set_title(f"{fixed} = {value}")
        axes[1, column].set_xlabel(axis)
    axes[0, 0].set_ylabel("seconds, forward and backward")
    axes[1, 0].set_ylabel("peak MB")
    axes[0, 0].legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="V=256 and 1024 only, 2 rounds")
    arguments = parser.parse_args()
    if arguments.quick:
        cases, goal_rounds = [(T, 256), (T, V)], 2
    else:
        cases = [(T, size) for size in VOCABULARIES] + [(size, V) for size in FRAMES if size != T]
        goal_rounds = 5
    rows = sweep(cases, goal_rounds)
    verdict = judge(rows)
    result = {"B": B, "U": U, "J": J, "threads": torch.get_num_threads(), **verdict, "rows": rows}
    if not arguments.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "losses.json").write_text(json.dumps(result, indent=1) + "\n")
        with matplotlib.rc_context(STYLE):
            draw(rows).savefig(RESULTS / "losses.png", dpi=150)
    for name in ("time", "memory"):
        ratio, goal = verdict[f"{name}_ratio"], verdict[f"{name}_goal"]
        print(
            f"{name}: {ratio:.3f} of torchaudio's, goal {goal}: {'yes' if ratio <= goal else 'NO'}"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
