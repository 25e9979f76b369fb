"""Whether a training multiplies in bfloat16 or in float32: whichever is faster on its device.

Encoder of the built-in teacher, 23 s of audio, forward and backward, one thread of a Xeon with
AVX512-BF16 but without AMX: 0.23 s in float32, 0.36 s under bfloat16 autocast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Bfloat16 = bool | Literal["auto"]
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Choice:
    """str() says what was chosen and why."""

    bfloat16: bool
    reason: str

    @property
    def name(self) -> str:
        return "bfloat16" if self.bfloat16 else "float32"

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def choose(asked: Bfloat16, device: str, stored: bool | None = None) -> Choice:
    """device: type of torch. stored: what a training that goes on was begun with, maybe elsewhere;
    auto keeps to it, so that no training changes its arithmetic half way."""
    if asked != "auto":
        return Choice(asked, "as set")
    here = choose_faster(device)
    if stored in (None, here.bfloat16):
        return here
    reason = f"as it was begun; this machine would take {here.name}, {here.reason}"
    return Choice(bool(stored), reason)


def choose_faster(device: str) -> Choice:
    """By what the device can do, not by a stopwatch: other work must not change the numbers."""
    if device == "cpu":
        if "amx_bf16" in cpu_flags():
            return Choice(True, "AMX multiplies it faster")
        return Choice(False, "without AMX bfloat16 is slower")
    if device == "cuda":
        if gpu_has_bfloat16():
            return Choice(True, "the GPU multiplies it faster")
        return Choice(False, "the GPU has no bfloat16")
    return Choice(False, f"bfloat16 was never measured on {device}")


@cache
def cpu_flags() -> frozenset[str]:
    """What the processor can do and Linux lets it; empty elsewhere. 100 cores take milliseconds."""
    return frozenset(CPUINFO.read_text().split()) if CPUINFO.exists() else frozenset()


def gpu_has_bfloat16() -> bool:
    import torch  # compress doctor runs without

    return torch.cuda.is_bf16_supported(including_emulation=False)
