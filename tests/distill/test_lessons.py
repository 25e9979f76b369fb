"""`--distill` as text, and the conflicts that are found before training."""

from __future__ import annotations

import pytest

from compress.distill import DISTILLERS
from compress.distill.lessons import check_lessons, parse_distill
from compress.train_lm import LmSettings, train_lm
from streaming.errors import InputError
from tests.tiny_teacher import build_teacher, build_tokenizer


def parsed(text, settings=None):
    return [
        (name, weight, first, end) for name, weight, first, end, _ in parse_distill(text, settings)
    ]


def test_parse():
    always = (0, float("inf"))
    assert parsed("lattice=0.5") == [("lattice", 0.5, *always)]
    assert parsed("lattice") == [("lattice", 1.0, *always)]
    assert parsed("none") == []
    assert parsed("lattice=2@0-300, lattice=1@300") == [
        ("lattice", 2.0, 0, 300),
        ("lattice", 1.0, 300, float("inf")),
    ]


def test_a_lesson_counts_from_its_first_step_to_before_its_end():
    (lesson,) = parse_distill("lattice=1@10-12")
    assert [step for step in range(20) if lesson.counts_at(step)] == [10, 11]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("latice=1", "use none or one of lattice"),
        ("", "use none or one of lattice"),
        ("lattice=much", "weight of lattice is a number"),
        ("lattice=-1", "weight of lattice is above 0"),
        ("lattice=nan", "weight of lattice is above 0"),
        ("lattice=1@x", "steps of lattice are FIRST"),
        ("lattice=1@9-9", "ends before it begins"),
    ],
)
def test_parse_names_the_fault(text, fault):
    with pytest.raises(InputError, match=fault):
        parse_distill(text)


def test_settings_are_checked():
    with pytest.raises(InputError, match="lattice has no setting 'depth'"):
        parse_distill("lattice=1", {"lattice": {"depth": 3}})
    with pytest.raises(InputError, match="no distillation method 'latice'"):
        parse_distill("none", {"latice": {}})


@pytest.mark.parametrize("name", DISTILLERS)
def test_every_method_is_built_with_its_defaults(name):
    (lesson,) = parse_distill(name)
    assert all(kind.name for kind in lesson.method.needs())


def test_other_vocabulary_and_other_frames_are_refused():
    teacher, student = build_teacher(), build_teacher()
    ours, theirs = build_tokenizer(), build_tokenizer(sentences=["seven eight", "lamp off now"])
    lessons = parse_distill("lattice=1")
    check_lessons(lessons, teacher, student, (ours, ours))
    with pytest.raises(InputError, match="lattice compares token by token"):
        check_lessons(lessons, teacher, student, (theirs, ours))
    student.encoder.subsampling = 8
    with pytest.raises(InputError, match=r"frame every 40 ms and the student every 80 ms"):
        check_lessons(lessons, teacher, student, (ours, ours))


def test_a_language_model_of_other_tokens_is_refused(tmp_path):
    other = build_tokenizer(sentences=["seven eight", "lamp off now"])
    (tmp_path / "bpe.model").write_bytes(other.model)
    train_lm(LmSettings(order=2), tmp_path / "bpe.model", [], [], tmp_path / "lm")
    lessons = parse_distill("one_best", {"one_best": {"lm": str(tmp_path / "lm")}})
    model, ours = build_teacher(), build_tokenizer()
    with pytest.raises(InputError, match=r"language model is over another vocabulary"):
        check_lessons(lessons, model, model, (ours, ours))
