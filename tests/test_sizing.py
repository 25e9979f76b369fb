"""Sizes and real-time factors as budgets: what is read, what is found, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from compress import sizing
from compress.bundle import graph_bytes
from compress.shrink.candidate import cut_at_once
from compress.shrink.pruner import Cut
from compress.sizing import CLOSE, MAX_EXPORTS, Target, explain, fit_sparsity, parse_size, search
from compress.trial import exported, measure_rtf, time_chunks
from streaming.bundle import read_bundle
from streaming.errors import InputError
from tests.streaming.tiny_bundle import build_bundle, make_speech
from tests.tiny_teacher import build_teacher, build_tokenizer


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("800KB", 800_000),
        ("800 kb", 800_000),
        ("0.8MB", 800_000),
        ("1MiB", 1_048_576),
        ("2KiB", 2048),
        ("123456", 123_456),
        ("9B", 9),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "small", "800 KBit", "8TB", "-5KB", "0", "0.0001KB", "1e5", "nan"]
)
def test_nonsense_sizes_are_refused(text):
    with pytest.raises(InputError, match="a size is"):
        parse_size(text)


def straight(sparsity):
    return 1000 - 900 * sparsity


def overhead(sparsity):
    """Half of the time is not the layers'."""
    return 500 + 500 * (1 - sparsity) ** 2


def stairs(sparsity):
    """Widths come in steps of a sixteenth."""
    return 1000 - 900 * int(sparsity * 16) / 16


@pytest.mark.parametrize("measured", [straight, overhead, stairs])
@pytest.mark.parametrize("target", [560, 700, 900])
def test_search_needs_few_measurements(measured, target):
    asked = []

    def measure(sparsity):
        assert 0 <= sparsity <= 0.98
        asked.append(measured(sparsity))
        return asked[-1]

    found = search(measure, target, 0.98, lambda: len(set(asked)) >= MAX_EXPORTS)
    nearest = min(abs(value - target) for value in found.values())
    assert nearest <= (30 if measured is stairs else CLOSE * target)
    assert len(set(asked)) <= MAX_EXPORTS
    assert len(asked) < 25


def test_a_target_is_judged():
    size, pace = Target(800_000), Target(rtf=0.004)
    assert size.judge(812_000) == "wanted 800 kB, got 812 kB: +1.5 %"
    assert size.judge(900_000) == "wanted 800 kB, got 900 kB: +12.5 %, more than the 5 % promised"
    assert (
        pace.judge(0.0039) == "wanted real-time factor 0.004, got real-time factor 0.0039: -2.5 %"
    )
    assert pace.judge(0.005).endswith("was the machine busy? Then measure again")


def test_targets_that_nobody_meets():
    found = search(straight, 50, 0.9, lambda: False)
    assert max(found) == 0.9, "the smallest was looked at"
    assert "smallest, of sparsity 0.9, has 190 B" in explain(found, Target(50), "channel")
    found = search(straight, 2000, 0.9, lambda: False)
    assert list(found) == [0.0], "nothing but the teacher was looked at"
    assert "the dense teacher has 1 kB, below 2 kB" in explain(found, Target(2000), "channel")
    gap = {0.0: 1000.0, 0.5: 800.0, 0.501: 400.0}
    assert "lies between two layouts of pattern block, of 800 B and 400 B" in explain(
        gap, Target(600), "block"
    )


def test_a_rate_is_shown_as_one():
    assert Target(rtf=0.02).show(0.01234) == "real-time factor 0.0123"
    assert Target(rtf=0.02).value == 0.02


@pytest.fixture(scope="module")
def teacher():
    return build_teacher()


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.mark.slow
def test_the_bundle_of_the_fitted_student_has_the_size(tokenizer):
    teacher = build_teacher(num_layers=1)
    fitted = fit_sparsity(teacher, tokenizer, Cut("channel"), Target(60_000))
    student = cut_at_once(teacher, Cut("channel"), fitted.sparsity)
    with exported(student, tokenizer) as bundle:
        size = graph_bytes(bundle, read_bundle(bundle))
    assert size == fitted.measured
    assert abs(size - 60_000) <= 3_000
    assert fitted.exports <= 5


@pytest.mark.parametrize("pattern", ["channel", "block:8", "small"])
def test_a_rate_is_met_for_every_pattern(pattern, teacher, tokenizer, monkeypatch):
    """The stopwatch is replaced: half of the time is the parameters', half is not."""

    def measure(student, *_):
        return 0.01 + 0.01 * student.num_kept / teacher.num_parameters

    monkeypatch.setattr(sizing, "measure_student", measure)
    fitted = fit_sparsity(teacher, tokenizer, Cut(pattern), Target(rtf=0.014))
    assert fitted.measured == pytest.approx(0.014, rel=0.05)
    assert fitted.sparsity == pytest.approx(0.6, abs=0.05)
    with pytest.raises(InputError, match=rf"no student of pattern {pattern} comes down to"):
        fit_sparsity(teacher, tokenizer, Cut(pattern), Target(rtf=0.009))


def test_labels_take_time_too(teacher, tokenizer, monkeypatch):
    """Students are timed silent; what the teacher's labels of the same speech cost is added."""
    monkeypatch.setattr(sizing, "measure_labels", lambda *_: 0.001)
    monkeypatch.setattr(sizing, "measure_student", lambda *_: 0.013)
    speech = [make_speech(3200, 0)]
    found = fit_sparsity(teacher, tokenizer, Cut("channel"), Target(rtf=0.014), utterances=speech)
    assert (found.sparsity, found.measured) == (0.0, pytest.approx(0.014))


def test_zeros_make_no_graph_smaller(teacher, tokenizer, monkeypatch):
    monkeypatch.setattr(sizing, "measure_student", lambda *_: 140_000.0)
    with pytest.raises(InputError, match=r"the smallest, of sparsity .* has 140 kB"):
        fit_sparsity(teacher, tokenizer, Cut("unstructured"), Target(70_000))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def test_times_are_times(bundle):
    rtf = measure_rtf({"it": bundle}, [make_speech(3200, 0)], passes=1)["it"]
    assert 0 < rtf < 100
    assert 0 < time_chunks({"one": bundle}, passes=1)["one"] < 1e5


@pytest.mark.slow  # a stopwatch: needs a quiet machine
def test_the_tail_of_silence_is_work_too(bundle):
    """320 ms follow each utterance: 0.2 s take 2.6 times the work that they are audio, 4 s 1.1."""
    short = measure_rtf({"it": bundle}, [make_speech(3200, n) for n in range(4)], passes=4)
    long = measure_rtf({"it": bundle}, [make_speech(64000, 0)], passes=4)
    assert short["it"] > 1.5 * long["it"] > 0


@pytest.mark.slow  # a stopwatch: needs a quiet machine
def test_times_of_several_bundles(bundle):
    times = time_chunks({"one": bundle, "two": bundle}, passes=4)
    assert times["one"] == pytest.approx(times["two"], rel=0.5)


@pytest.mark.slow
def test_a_trial_says_nothing(teacher, tokenizer):
    before = teacher.joiner.output.bias.clone()
    with exported(teacher, tokenizer, "none") as bundle:
        from streaming import open_bundle

        noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
        assert list(open_bundle(bundle).transcribe([noise])) in ([], [""])
        assert bundle.is_dir()
    assert not bundle.exists()
    assert (teacher.joiner.output.bias == before).all()
