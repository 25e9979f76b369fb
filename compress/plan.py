"""`compress plan`: what a run would give and what it would take, before anything is trained.

Sizes and times are not estimated: an untrained student of the final layout is exported and decodes
noise, beside the dense teacher exported the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from compress.bundle import graph_bytes, networks
from compress.config import RunConfig
from compress.measure import measure_alone
from compress.models.transducer import Transducer
from compress.pipeline import describe_layers, num_prunable
from compress.progress import say
from compress.rehearsal import Rehearsed, rehearse
from compress.report.quantities import (
    format_bytes,
    format_count,
    format_duration,
    format_ms,
    format_share,
    format_times,
)
from compress.run import Run
from compress.shrink.pruner import DENSE, Cut, matrices, pattern_of, slow_blocks
from compress.trial import exported, make_noise, time_chunks
from export.pack import name_pack, pack_bundle
from streaming.bundle import read_bundle

SOME = 0.01  # share of a matrix from which something is gone of it
NAMED = 3  # layers that are named before the rest is counted


@dataclass(frozen=True)
class Exported:
    """A bundle as a device sees it; memory_mb with Python and libraries."""

    onnx_bytes: int
    packed_bytes: int
    chunk_ms: float
    memory_mb: float


@dataclass(frozen=True)
class Plan:
    """Pairs are the teacher's and the student's. shapes: of the teacher's layers; layers: as a
    report lists them; dense: module that stays as it is -> why."""

    sparsity: float
    parameters: tuple[int, int]
    prunable: tuple[int, int]
    teacher: Exported
    student: Exported
    chunk_ms: int
    shapes: Mapping[str, Sequence[int]]
    layers: Sequence[Mapping[str, Any]]
    dense: Mapping[str, str]
    by_sensitivity: bool
    rehearsed: Rehearsed
    steps: int


def make_plan(config: RunConfig) -> Plan:
    """Raises InputError for what cannot be reached."""
    run = Run(config, Path())
    networks(run.teacher)
    sparsity = run.fit_target().sparsity if config.target else config.sparsity
    student = run.untrained(sparsity)
    say("rehearsing a few steps")
    rehearsed = rehearse(config, sparsity)
    say("exporting teacher and student")
    tail_frames = config.recipe.batches.tail_frames
    settings = run.tokenizer, config.trial_method, tail_frames
    with exported(run.teacher, *settings) as dense, exported(student, *settings) as small:
        times_ms = time_chunks({"teacher": dense, "student": small})
        info = read_bundle(small)
        return Plan(
            sparsity=sparsity,
            parameters=(run.teacher.num_parameters, student.num_kept),
            prunable=(num_prunable(run.teacher), num_prunable(student)),
            teacher=describe(dense, times_ms["teacher"]),
            student=describe(small, times_ms["student"]),
            chunk_ms=10 * info.chunk_frames,
            shapes={layer["name"]: layer["shape"] for layer in read_bundle(dense).layers},
            layers=describe_layers(info),
            dense=list_dense(run.teacher, student, config.cut()),
            by_sensitivity=config.sensitive,
            rehearsed=rehearsed,
            steps=config.recipe.steps,
        )


def describe(bundle: Path, chunk_ms: float) -> Exported:
    _, memory_mb = measure_alone(bundle, make_noise())
    packed_bytes = pack_bundle(bundle, name_pack(bundle))
    return Exported(graph_bytes(bundle, read_bundle(bundle)), packed_bytes, chunk_ms, memory_mb)


def list_dense(teacher: Transducer, student: Transducer, cut: Cut) -> dict[str, str]:
    """Matrices of which nothing goes, and why; empty where layers go whole."""
    if cut.pattern in ("layers", "small"):
        return {}
    names = matrices(teacher)
    slow = slow_blocks(teacher, cut)
    return {
        name: explain(name, cut, name in slow)
        for name in names
        if num_left(student, name) > (1 - SOME) * num_left(teacher, name)
    }


def explain(name: str, cut: Cut, slow: bool) -> str:
    pattern = pattern_of(name, cut)
    if pattern == DENSE:
        return "excluded"
    if slow:
        return "no faster in blocks"
    if pattern == "channel" and (cut.mix or cut.exclude):
        return "shares its channels with a layer that keeps them"
    return "nothing to remove at this sparsity"


def num_left(model: Transducer, name: str) -> int:
    """Values in use in the matrices of a module."""
    weights = model.get_submodule(name).named_parameters()
    return sum(int((weight != 0).sum()) for _, weight in weights if weight.ndim > 1)


def show_plan(plan: Plan, layers: bool = False) -> None:
    """On stdout; with `layers` a line a matrix too."""
    console = Console()
    console.print(summary_table(plan))
    for note in notes(plan):
        console.print(note, highlight=False)
    if layers:
        console.print(layer_table(plan))


def summary_table(plan: Plan) -> Table:
    removed, prunable = (1 - kept / dense for dense, kept in (plan.parameters, plan.prunable))
    table = Table(box=SIMPLE)
    for title in ("", "teacher", "student", ""):
        table.add_column(title)
    teacher, student = plan.teacher, plan.student
    counts = [format_count(number) for number in plan.parameters]
    shares = f"{format_share(removed)} removed, {format_share(prunable)} of what is prunable"
    table.add_row("parameters", *counts, shares)
    sizes = teacher.onnx_bytes, student.onnx_bytes
    smaller = f"{format_times(sizes[0] / sizes[1])} smaller"
    table.add_row("bundle", *map(format_bytes, sizes), smaller)
    packed = teacher.packed_bytes, student.packed_bytes
    smaller = f"{format_times(packed[0] / packed[1])} smaller"
    table.add_row("download", *map(format_bytes, packed), smaller)
    times = teacher.chunk_ms, student.chunk_ms
    faster = f"{format_times(times[0] / times[1])} as fast; a chunk is {plan.chunk_ms} ms of audio"
    table.add_row("a chunk", *map(format_ms, times), faster)
    memory = f"{teacher.memory_mb:.0f} MB", f"{student.memory_mb:.0f} MB"
    table.add_row("memory", *memory, "on the device, Python included")
    return table


def notes(plan: Plan) -> list[str]:
    """What the run takes, and what stays as it is."""
    run = plan.rehearsed
    steps = f"{plan.steps} steps, {run.dense:.2f} s each at first, {run.final:.2f} s at the end"
    if run.prunings:
        steps += f", {run.prunings} prunings of {run.pruning:.2f} s"
    if run.rounding_steps:
        steps += f", {run.rounding_steps} more with rounding of {run.rounding:.2f} s"
    told = [
        f"training: {format_duration(run.seconds)} ({steps}); making data, the teacher's targets "
        "and measuring come on top",
        f"memory of the training: {format_bytes(run.peak_bytes)}",
    ]
    for reason in dict.fromkeys(plan.dense.values()):
        names = [name for name, why in plan.dense.items() if why == reason]
        more = f" and {len(names) - NAMED} more (--layers)" if len(names) > NAMED else ""
        told.append(f"dense, {reason}: {', '.join(names[:NAMED])}{more}")
    if plan.by_sensitivity:
        told.append("which layer loses how much is settled by the run: here all lose alike")
    return told


def layer_table(plan: Plan) -> Table:
    """Every matrix of the student's graphs."""
    table = Table(box=SIMPLE)
    table.add_column("layer", no_wrap=True)
    for title in ("shape", "zeros", "bits"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("becomes")
    for layer in plan.layers:
        name = layer["name"]
        before, after = (show_shape(some) for some in (plan.shapes.get(name, ()), layer["shape"]))
        table.add_row(
            name.removeprefix("encoder."),  # 80 columns hold the rest
            after if before in ("", after) else f"{before} to {after}",
            f"{100 * layer['sparsity']:.0f} %",
            str(layer["bits"]),
            become(layer, plan.dense.get(name)),
        )
    return table


def become(layer: Mapping[str, Any], why_dense: str | None) -> str:
    """What a matrix is for the device."""
    if layer["form"] == "dense":
        return f"dense: {why_dense}" if why_dense else "dense"
    return layer["pattern"] if layer["form"] == "blocks" else f"{layer['pattern']} zeros"


def show_shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
