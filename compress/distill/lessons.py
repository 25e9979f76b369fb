"""`--distill` as text, the lessons it asks for, and whether teacher and student fit them.

lattice=1.0                          one method
lattice=1.0,encoder=0.3              two, added up
hidden=1@0-300,softmax=0.5@300       from step to step: 0..299, then from 300 to the end
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from compress.data.tokenizer import Tokenizer
from compress.distill import DISTILLERS
from compress.distill.distiller import Distiller
from compress.distill.targets.kind import Kind
from compress.lm import check_tokenizer
from compress.models.transducer import Transducer
from streaming.errors import InputError

Settings = Mapping[str, Mapping[str, Any]]
SPAN = re.compile(r"(\d+)(?:-(\d+))?")


class Lesson(NamedTuple):
    """A method, its weight and the steps it counts in: first <= step < end."""

    name: str
    weight: float
    first: int
    end: float
    method: Distiller

    def counts_at(self, step: int) -> bool:
        return self.first <= step < self.end


def parse_distill(text: str, settings: Settings | None = None) -> list[Lesson]:
    """The lessons of `name=weight@first-end`, several separated by commas; `none` for none.

    settings: by method name, what differs from the method's defaults. Raises InputError for an
    unknown method or setting, a weight that is not a positive number and a span that is empty.
    """
    settings = settings or {}
    for name, some in settings.items():
        known_method(name)
        build_method(name, some)
    if text.strip() == "none":
        return []
    lessons = [parse_lesson(part.strip(), settings) for part in text.split(",")]
    collect_kinds(lessons)
    return lessons


def parse_lesson(text: str, settings: Settings) -> Lesson:
    amount, at, span = text.partition("@")
    name, _, number = amount.partition("=")
    known_method(name)
    try:
        weight = float(number or 1.0)
    except ValueError:
        raise InputError(f"the weight of {name} is a number, got {number!r}") from None
    if not 0 < weight < float("inf"):
        raise InputError(f"the weight of {name} is above 0, got {number}: leave it out instead")
    first, end = parse_span(name, span) if at else (0, float("inf"))
    return Lesson(name, weight, first, end, build_method(name, settings.get(name, {})))


def known_method(name: str) -> None:
    if name not in DISTILLERS:
        known = ", ".join(DISTILLERS)
        raise InputError(f"no distillation method {name!r}: use none or one of {known}")


def parse_span(name: str, span: str) -> tuple[int, float]:
    match = SPAN.fullmatch(span)
    if not match:
        raise InputError(f"the steps of {name} are FIRST or FIRST-END, as in 0-300; got {span!r}")
    first, end = int(match[1]), float(match[2] or "inf")
    if first >= end:
        raise InputError(f"the steps of {name} are none: {span} ends before it begins")
    return first, end


def build_method(name: str, settings: Mapping[str, Any]) -> Distiller:
    kind = DISTILLERS[name]
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for setting in settings:
        if setting not in known:
            choice = f"one of {', '.join(known)}" if known else "it has none"
            raise InputError(f"{name} has no setting {setting!r}: {choice}")
    return kind(**settings)


def collect_kinds(lessons: list[Lesson]) -> list[Kind]:
    """The stored targets of all lessons. Raises InputError when two want one kind differently."""
    kinds: dict[str, Kind] = {}
    for lesson in lessons:
        for kind in lesson.method.needs():
            if kinds.setdefault(kind.name, kind) != kind:
                raise InputError(
                    f"{lesson.name} wants stored targets {kind}, another method wants "
                    f"{kinds[kind.name]}: give both the same settings"
                )
    return list(kinds.values())


def check_lessons(
    lessons: list[Lesson],
    teacher: Transducer,
    student: Transducer,
    tokenizers: tuple[Tokenizer, Tokenizer],
) -> None:
    """Whether each method can be used with these two, before any training.

    tokenizers: the teacher's, the student's. Raises InputError that names the conflict.
    """
    theirs, ours = tokenizers
    rates = teacher.encoder.subsampling, student.encoder.subsampling
    for kind in collect_kinds(lessons):
        if lm := getattr(kind, "language_model", None):
            check_tokenizer(lm, theirs)
    for name, _, _, _, method in lessons:
        if method.same_vocabulary and theirs.model != ours.model:
            raise InputError(
                f"{name} compares token by token, but teacher and student have different "
                f"tokenizers ({theirs.vocab_size} and {ours.vocab_size} tokens): give the student "
                f"the teacher's, or use {without('same_vocabulary')}"
            )
        if method.same_frames and rates[0] != rates[1]:
            raise InputError(
                f"{name} compares frame by frame, but the teacher has a frame every "
                f"{10 * rates[0]} ms and the student every {10 * rates[1]} ms: use "
                f"{without('same_frames')}"
            )


def without(need: str) -> str:
    names = [name for name, kind in DISTILLERS.items() if not getattr(kind, need)]
    return ", ".join(names) or "another method"
