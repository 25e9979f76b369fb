"""From what was asked for to a Teaching: checks first, then the teacher's targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compress.data.batches import BatchSampler
from compress.data.tokenizer import Tokenizer
from compress.distill.lessons import Lesson, check_lessons, collect_kinds
from compress.distill.tandem import CoLearning, Tandem
from compress.distill.targets.store import store_targets
from compress.distill.teaching import Teaching
from compress.models.transducer import Transducer

Model = tuple[Transducer, Tokenizer]


def build_teaching(
    lessons: list[Lesson],
    tandem: str,
    teacher: Model,
    student: Model,
    sampler: BatchSampler,
    folder: Path,
) -> Teaching:
    """Lessons with what the teacher says of the sampler's data, stored in `folder`.

    tandem: `none` for a frozen teacher, `colearn` or `shared` for one that learns along.
    Raises InputError when a method cannot be used between these two models.
    """
    check_lessons(lessons, teacher[0], student[0], (teacher[1], student[1]))
    if tandem != "none":
        learning = CoLearning(lessons, Tandem(teacher[0], student[0], tandem))
        learning.fit(student[0].config, teacher[0].config)
        return learning
    # The teacher reads the texts in its own tokens; a student that has others is checked above.
    theirs = replace(sampler, tokenizer=teacher[1], _targets={})
    kinds = collect_kinds(lessons)
    targets = store_targets(folder, kinds, teacher[0], theirs) if lessons else None
    teaching = Teaching(lessons, targets)
    teaching.fit(student[0].config, teacher[0].config)
    return teaching
