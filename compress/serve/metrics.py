"""What the server counts, as /metrics shows it: the text format of Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

LATENCY_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass
class Histogram:
    """How many values were at most each of the bounds."""

    bounds: tuple[float, ...]
    total: float = 0.0
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def render(self, name: str) -> list[str]:
        lines, below = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            below += count
            label = "+Inf" if bound == float("inf") else f"{bound:g}"
            lines.append(f'{name}_bucket{{le="{label}"}} {below}')
        return [*lines, f"{name}_sum {self.total:.6f}", f"{name}_count {below}"]


@dataclass
class Metrics:
    """Counters of one server. decode_seconds: time in the decoding thread, features included."""

    connections: int = 0
    connections_total: int = 0
    refused_total: int = 0
    streams: int = 0
    utterances_total: int = 0
    errors_total: int = 0
    partials_dropped_total: int = 0
    audio_seconds: float = 0.0
    decode_seconds: float = 0.0
    batch_size: Histogram = field(default_factory=lambda: Histogram(BATCH_SIZES))
    chunk_latency: Histogram = field(default_factory=lambda: Histogram(LATENCY_SECONDS))

    @property
    def real_time_factor(self) -> float:
        return self.decode_seconds / self.audio_seconds if self.audio_seconds else 0.0

    def render(self) -> str:
        lines: list[str] = []
        for name, kind, text, value in (
            ("connections", "gauge", "Clients now.", self.connections),
            ("connections_total", "counter", "Clients so far.", self.connections_total),
            ("refused_total", "counter", "Clients refused at the limit.", self.refused_total),
            ("streams", "gauge", "Streams that hear sound now.", self.streams),
            ("utterances_total", "counter", "Utterances that ended.", self.utterances_total),
            ("errors_total", "counter", "Connections ended by an error.", self.errors_total),
            (
                "partials_dropped_total",
                "counter",
                "Partial texts that slow readers missed.",
                self.partials_dropped_total,
            ),
            ("audio_seconds_total", "counter", "Sound heard.", self.audio_seconds),
            ("decode_seconds_total", "counter", "Time spent on it.", self.decode_seconds),
            ("real_time_factor", "gauge", "Time over sound.", self.real_time_factor),
        ):
            lines += [*_head(name, kind, text), f"compress_{name} {value:.10g}"]
        for name, text, histogram in (
            ("batch_size", "Streams of a call of the encoder.", self.batch_size),
            ("chunk_latency_seconds", "From a message to its text.", self.chunk_latency),
        ):
            lines += _head(name, "histogram", text) + histogram.render(f"compress_{name}")
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP compress_{name} {text}", f"# TYPE compress_{name} {kind}"]
