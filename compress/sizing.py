"""A budget in bytes or in time instead of a sparsity: untrained students are exported and measured.

Both fall nearly linearly with the parameters that are left, so a handful of exports settles it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from compress.bundle import graph_bytes
from compress.data.batches import BatchSettings
from compress.data.tokenizer import Tokenizer
from compress.models.transducer import Transducer
from compress.progress import say
from compress.report.quantities import format_bytes
from compress.shrink.candidate import cut_at_once
from compress.shrink.pruner import Cut, build_pruner
from compress.shrink.small import MAKERS, count_parameters
from compress.trial import exported, measure_labels, measure_rtf
from export.quantize import Method
from streaming.bundle import read_bundle
from streaming.errors import InputError
from streaming.features import FloatArray

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20}
TOLERANCE = 0.05  # of the target, promised
CLOSE = 0.02  # of the target, looked for
MAX_EXPORTS = 8
LINES = 5  # measurements after which halving beats straight lines, which steps mislead
SMALLEST_GAP = 2e-4  # of sparsity


def parse_size(text: str) -> int:
    """Bytes of "800KB", "0.8 MB", "781KiB" or "800000". Raises InputError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*", text, re.IGNORECASE)
    unit = UNITS.get(found[2].upper()) if found else None
    if not found or unit is None:
        raise InputError(f"a size is bytes, or a number with KB, MB, KiB or MiB; got {text!r}")
    size = round(float(found[1]) * unit)
    if size < 1:
        raise InputError(f"a size is at least a byte; got {text!r}: 800KB, for example")
    return size


@dataclass(frozen=True)
class Target:
    """size: bytes of the graphs that run by default, `onnx_bytes` of a report. rtf: seconds of
    work for a second of audio, one thread, on this machine. One of the two is given."""

    size: int | None = None
    rtf: float | None = None

    @property
    def value(self) -> float:
        return float(self.size or self.rtf or 0)

    def measure(self, bundle: Path, utterances: Sequence[FloatArray]) -> float:
        """What a bundle has of it."""
        if self.size:
            return float(graph_bytes(bundle, read_bundle(bundle)))
        return measure_rtf({"": bundle}, utterances)[""]

    def judge(self, measured: float) -> str:
        """One line: what was wanted, what is there, how far that is off."""
        off = measured / self.value - 1
        line = f"wanted {self.show(self.value)}, got {self.show(measured)}: {100 * off:+.1f} %"
        if abs(off) <= TOLERANCE:
            return line
        busy = "; was the machine busy? Then measure again" if self.rtf else ""
        return f"{line}, more than the {100 * TOLERANCE:g} % promised{busy}"

    def show(self, measured: float) -> str:
        return format_bytes(measured) if self.size else f"real-time factor {measured:.3g}"


@dataclass(frozen=True)
class Fitted:
    """measured: bytes or real-time factor of the untrained student at `sparsity`."""

    sparsity: float
    measured: float
    exports: int


def fit_sparsity(
    teacher: Transducer,
    tokenizer: Tokenizer,
    cut: Cut,
    target: Target,
    quantize: Method = "int8",
    tail_frames: int = BatchSettings.tail_frames,
    utterances: Sequence[FloatArray] = (),
) -> Fitted:
    """The sparsity whose bundle meets the target within 5 %.

    utterances: samples that the real-time factor is measured on, noise by default; the tail of
    silence after each counts, so short ones cost more a second. Raises InputError for a target
    that no student meets, naming the nearest that one does.
    """
    sizes: dict[tuple[int, int], float] = {}
    labels = 0.0
    if target.rtf and utterances:
        labels = measure_labels(teacher, tokenizer, quantize, tail_frames, utterances)

    def measure(sparsity: float) -> float:
        student = cut_at_once(teacher, cut, sparsity) if sparsity else teacher
        layout = student.num_parameters, student.num_kept
        if layout not in sizes:
            sizes[layout] = labels + measure_student(
                student, tokenizer, target, quantize, tail_frames, utterances
            )
            what = f"sparsity {sparsity:.4f}" if sparsity else "dense"
            say(f"  {what}: {target.show(sizes[layout])}, wanted {target.show(target.value)}")
        return sizes[layout]

    most = find_most(teacher, cut)
    found = search(measure, target.value, most, lambda: len(sizes) >= MAX_EXPORTS)
    sparsity = min(found, key=lambda sparsity: abs(found[sparsity] - target.value))
    if abs(found[sparsity] - target.value) > TOLERANCE * target.value:
        raise InputError(explain(found, target, cut.pattern))
    return Fitted(sparsity, found[sparsity], len(sizes))


def measure_student(
    student: Transducer,
    tokenizer: Tokenizer,
    target: Target,
    quantize: Method,
    tail_frames: int,
    utterances: Sequence[FloatArray],
) -> float:
    with exported(student, tokenizer, quantize, tail_frames) as bundle:
        return target.measure(bundle, utterances)


def find_most(teacher: Transducer, cut: Cut) -> float:
    """The largest sparsity that the cut reaches."""
    if cut.pattern == "small":
        narrowest = next(MAKERS[type(teacher.config.encoder)](teacher.config))
        most = 1 - count_parameters(narrowest) / teacher.num_parameters
    else:
        most = build_pruner(deepcopy(teacher), teacher.config, cut).max_sparsity
    return int(most * 1e4) / 1e4


def search(
    measure: Callable[[float], float], target: float, most: float, enough: Callable[[], bool]
) -> dict[float, float]:
    """sparsity -> what was measured on the way to `target`; it falls as sparsity grows."""
    found = {0.0: measure(0.0)}
    while not enough():
        sparsity = next_sparsity(found, target, most)
        if sparsity is None:
            break
        found[sparsity] = measure(sparsity)
        if abs(found[sparsity] - target) <= CLOSE * target:
            break
    return found


def around(found: dict[float, float], target: float) -> tuple[list[float], list[float]]:
    """Ascending sparsities that were measured above the target, and not above it."""
    above = [sparsity for sparsity in sorted(found) if found[sparsity] > target]
    return above, [sparsity for sparsity in sorted(found) if found[sparsity] <= target]


def next_sparsity(found: dict[float, float], target: float, most: float) -> float | None:
    """Where to measure next: on a line through the neighbours, later halfway between them."""
    above, below = around(found, target)
    if not above:
        return None  # nothing needs to go
    low, high = above[-1], below[0] if below else most
    if high - low < SMALLEST_GAP:
        return None
    if not below:
        guess = extrapolate(found, above, target)
        return min(max(guess, low + SMALLEST_GAP), most)
    if len(found) > LINES:
        return (low + high) / 2
    share = (found[low] - target) / (found[low] - found[high])
    return low + (high - low) * min(0.9, max(0.1, share))


def extrapolate(found: dict[float, float], above: list[float], target: float) -> float:
    """Where the line through the last two points, or from the first to nothing, meets `target`."""
    low = above[-1]
    other = above[-2] if len(above) > 1 else 1.0
    slope = (found.get(other, 0.0) - found[low]) / (other - low)
    return low + (target - found[low]) / slope if slope < 0 else 1.0


def explain(found: dict[float, float], target: Target, pattern: str) -> str:
    """Why no sparsity meets the target, and what comes nearest."""
    wanted = target.show(target.value)
    above, below = around(found, target.value)
    if not above:
        return f"the dense teacher has {target.show(found[0.0])}, below {wanted}: ask for less"
    nearest = target.show(found[above[-1]])
    if not below:
        return (
            f"no student of pattern {pattern} comes down to {wanted}: the smallest, of sparsity "
            f"{above[-1]:g}, has {nearest}: ask for that, or choose another pattern"
        )
    return (
        f"{wanted} lies between two layouts of pattern {pattern}, of {nearest} and "
        f"{target.show(found[below[0]])}: ask for one of them"
    )
