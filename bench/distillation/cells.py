"""What is trained, and which two results a row of the table compares.

A cell is one training setting; it runs once a seed. A comparison is a cell without a method, the
same with it, and the paper whose headline it is. Weights and spans were chosen on speakers that no
row is judged by (bench/LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One training: who learns from whom, on what, by which methods.

    student: `stream`, `wide`, `offline` or `lstm`, from the start that all its cells share; or
    `pruned`, the teacher itself with `sparsity` of it removed. data: `all` transcripts, a `few` of
    them, or `few+TEACHER`: the few and untranscribed speech labelled by that teacher. {early} in
    `distill` is the step where the first third ends.
    """

    student: str
    teacher: str
    data: str = "all"
    distill: str = "none"
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    tandem: str = "none"
    sparsity: float = 0.0
    alone: bool = False  # the first third of the steps hears the teacher only

    @property
    def family(self) -> str:
        """Whose first weights the student has; an offline one begins as a streaming one."""
        return "stream" if self.student == "offline" else self.student


@dataclass(frozen=True)
class Comparison:
    paper: str
    setting: str
    without: str
    with_: str
    quick: bool = False


def pruned(sparsity: float, distill: str = "none", **settings: Any) -> Cell:
    return Cell("pruned", "demo", distill=distill, sparsity=sparsity, **settings)


TUTORNET = "hidden=0.1@0-{early},softmax=0.3@{early}"
HUBER = {"full_sum": {"distance": "huber"}}
TUTORNET_ALONE = "hidden=1@0-{early},softmax=1@{early}"
SHIFT = {"shift": 2, "window": True}

CELLS = {
    # 2011.06110: the student is the teacher, pruned on a cubic ramp.
    "sparse-60": pruned(0.6),
    "sparse-60-lattice": pruned(0.6, "lattice=1"),
    "sparse-60-occupancy": pruned(0.6, "occupancy=1"),
    "sparse-90": pruned(0.9),
    "sparse-90-lattice": pruned(0.9, "lattice=1"),
    "sparse-90-lattice-2": pruned(0.9, "lattice=2"),
    "sparse-90-occupancy": pruned(0.9, "occupancy=1"),
    "sparse-90-path": pruned(0.9, "lattice=1,one_best=1"),
    "sparse-90-encoder": pruned(0.9, "lattice=1,encoder=0.1"),
    # 2110.03334: a full-context teacher; all transcripts, or few and more speech without any.
    "stream": Cell("stream", "demo"),
    "stream-one-best": Cell("stream", "full", "all", "one_best=1", {"one_best": SHIFT}),
    "offline": Cell("offline", "full"),
    "offline-one-best": Cell("offline", "full", "all", "one_best=1"),
    "offline-few": Cell("offline", "full", "few"),
    "offline-few-one-best": Cell("offline", "full", "few", "one_best=1"),
    "offline-more-one-best": Cell("offline", "full", "few+full", "one_best=1"),
    "stream-few": Cell("stream", "full", "few"),
    "stream-few-one-best": Cell("stream", "full", "few", "one_best=1", {"one_best": SHIFT}),
    "stream-more-one-best": Cell("stream", "full", "few+full", "one_best=1", {"one_best": SHIFT}),
    "stream-more-one-best-lm": Cell(
        "stream", "full", "few+full", "one_best=1", {"one_best": {**SHIFT, "lm": "LM"}}
    ),
    # 2106.07734: encoder distillation from a frozen teacher, one that learns along, one decoder.
    "wide": Cell("wide", "demo"),
    "wide-static": Cell("wide", "demo", distill="encoder=0.1"),
    "wide-colearn": Cell("wide", "demo", distill="encoder=0.1", tandem="colearn"),
    "wide-shared-encoder": Cell("wide", "demo", distill="encoder=0.1", tandem="shared"),
    # 2303.05958: pseudo-labels of a good and of a bad teacher.
    "good-hard": Cell("stream", "demo", "few+demo"),
    "good-soft": Cell("stream", "demo", "few+demo", "lattice=1"),
    "good-full-sum": Cell("stream", "demo", "few+demo", "full_sum=1"),
    "bad-hard": Cell("stream", "bad", "few+bad"),
    "bad-soft": Cell("stream", "bad", "few+bad", "lattice=1"),
    "bad-full-sum": Cell("stream", "bad", "few+bad", "full_sum=1", HUBER),
    # 2008.00671: teacher and student of different families.
    "lstm": Cell("lstm", "demo"),
    "lstm-tutornet": Cell("lstm", "demo", distill=TUTORNET),
    "lstm-tutornet-alone": Cell("lstm", "demo", distill=TUTORNET_ALONE, alone=True),
    "stream-tutornet": Cell("stream", "lstm", distill=TUTORNET),
}

COMPARISONS = [
    Comparison("2011.06110", "60 % pruned, lattice", "sparse-60", "sparse-60-lattice"),
    Comparison("ours", "60 % pruned, occupancy", "sparse-60", "sparse-60-occupancy"),
    Comparison("2011.06110", "90 % pruned, lattice", "sparse-90", "sparse-90-lattice", quick=True),
    Comparison("ours", "90 % pruned, lattice=2", "sparse-90", "sparse-90-lattice-2"),
    Comparison("ours", "90 % pruned, occupancy", "sparse-90", "sparse-90-occupancy"),
    Comparison("ours", "90 % pruned, lattice and one_best", "sparse-90", "sparse-90-path"),
    Comparison("ours", "90 % pruned, lattice and encoder", "sparse-90", "sparse-90-encoder"),
    Comparison("2110.03334", "offline, labelled only", "offline", "offline-one-best"),
    Comparison("2110.03334", "offline, a tenth labelled", "offline-few", "offline-few-one-best"),
    Comparison("2110.03334", "offline, unlabelled too", "offline-few", "offline-more-one-best"),
    Comparison("2110.03334", "streaming, labelled only", "stream", "stream-one-best", quick=True),
    Comparison("2110.03334", "streaming, a tenth labelled", "stream-few", "stream-few-one-best"),
    Comparison("2110.03334", "streaming, unlabelled too", "stream-few", "stream-more-one-best"),
    Comparison("2110.03334", "streaming, unlabelled, LM", "stream-few", "stream-more-one-best-lm"),
    Comparison("2106.07734", "static teacher", "wide", "wide-static"),
    Comparison("2106.07734", "co-learning", "wide", "wide-colearn"),
    Comparison("2106.07734", "shared decoder, co-learning", "wide", "wide-shared-encoder"),
    Comparison("2303.05958", "good teacher, against hard", "good-hard", "good-full-sum"),
    Comparison("2303.05958", "good teacher, against soft", "good-soft", "good-full-sum"),
    Comparison("2303.05958", "bad teacher, against hard", "bad-hard", "bad-full-sum"),
    Comparison("2303.05958", "bad teacher, against soft", "bad-soft", "bad-full-sum"),
    Comparison("2008.00671", "LSTM from a Conformer", "lstm", "lstm-tutornet", quick=True),
    Comparison("2008.00671", "the same, its first stage alone", "lstm", "lstm-tutornet-alone"),
    Comparison("2008.00671", "Conformer from an LSTM", "stream", "stream-tutornet"),
]
