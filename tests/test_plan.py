"""What a run would give and take, told before it: `compress plan`."""

from __future__ import annotations

import pytest

from compress import plan as planning
from compress import rehearsal
from compress.cli import run_app
from compress.cli_options import build_run_config
from compress.plan import explain, list_dense, make_plan, notes
from compress.rehearsal import rehearse
from compress.shrink.candidate import cut_at_once
from compress.shrink.pruner import Cut, matrices
from compress.shrink.schedule import pruning_steps, sparsity_at
from tests.tiny_teacher import build_teacher


@pytest.fixture
def config(teacher, recipe):
    def build(pattern="channel", sparsity=0.5, **changes):
        return build_run_config(
            teacher, str(recipe), changes={"sparsity": sparsity, **changes}, pattern=pattern
        )

    return build


def test_the_command_plans_the_student_to_come(teacher, recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before, plans = sorted(tmp_path.iterdir()), []
    monkeypatch.setattr("compress.plan.make_plan", lambda config: keep(plans, make_plan(config)))
    options = ["--teacher", str(teacher), "--recipe", str(recipe), "--sparsity", "0.5", "--layers"]
    assert run_app(["plan", *options, "--exclude", "feed_forward_in"]) == 0
    (plan,) = plans
    dense = build_teacher()
    student = cut_at_once(dense, Cut("channel", exclude=["feed_forward_in"]), 0.5)
    assert plan.parameters == (dense.num_parameters, student.num_kept)
    assert 0 < plan.student.onnx_bytes < plan.teacher.onnx_bytes
    assert 0 < plan.student.packed_bytes < plan.student.onnx_bytes
    assert plan.student.chunk_ms > 0 < plan.teacher.chunk_ms
    assert plan.student.memory_mb > 20
    assert {layer["name"] for layer in plan.layers} >= set(matrices(dense))
    assert plan.dense["encoder.layers.0.feed_forward_in.up"] == "excluded"
    assert plan.rehearsed.seconds > 0
    assert sorted(tmp_path.iterdir()) == before, "nothing is left behind"
    told = capsys.readouterr().out
    for word in (
        "parameters",
        "bundle",
        "download",
        "a chunk",
        "memory",
        "training: ",
        "joiner.output",
    ):
        assert word in told


def keep(plans, plan):
    plans.append(plan)
    return plan


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pattern", "2:4", "--sparsity", "0.9"], "pattern 2:4 cannot reach sparsity 0.9"),
        (["--sparsity", "0.999"], "no layout reaches sparsity 0.999"),
        pytest.param(
            ["--target-size", "1KB"],
            "no student of pattern channel comes down to 1 kB",
            marks=pytest.mark.slow,
        ),
        pytest.param(["--target-size", "1GB"], "the dense teacher has", marks=pytest.mark.slow),
        (["--target-size", "tiny"], "a size is bytes"),
        (["--sparsity", "0.5", "--target-size", "80KB"], "two budgets"),
        (["--exclude", "nothing_like_it", "--sparsity", "0.5"], "no module is called"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options, message, teacher, recipe, capsys):
    assert run_app(["plan", "--teacher", str(teacher), "--recipe", str(recipe), *options]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def fixed_times(monkeypatch, seconds_of):
    monkeypatch.setattr(rehearsal.Practice, "step", lambda self, step: seconds_of(self, step))


@pytest.mark.parametrize("schedule", ["cubic", "linear"])
def test_seconds_add_up_over_the_ramp(schedule, config, monkeypatch):
    """Slow twin: a loop over all steps; a dense step takes 2 s, one at the end 1 s, pruning 3 s."""
    ramp = {"begin_share": 0.1, "end_share": 0.5, "every": 3}
    asked = config(steps=40, ramp=ramp, schedule=schedule)
    begin, end, every = asked.recipe.ramp.steps(40)

    def seconds_of(practice, step):
        dense = step < end
        return 2.0 if dense else 4.0 if step == end else 1.0

    fixed_times(monkeypatch, seconds_of)
    rehearsed = rehearse(asked, 0.5)
    total = 0.0
    for step in range(40):
        removed = sparsity_at(step, begin, end, 0.5, kind=schedule)
        total += 2.0 - removed / 0.5
        total += 3.0 if step in pruning_steps(begin, end, every) else 0.0
    assert rehearsed.seconds == pytest.approx(total)


def test_a_small_network_takes_its_phases(config, monkeypatch):
    asked = config("small", steps=10, warm_up={"phone": 0.2, "ctc": 0.3})

    def seconds_of(practice, step):
        return {"phone": 1.0, "ctc": 10.0, "transducer": 100.0}[kind_of(practice, step)]

    def kind_of(practice, step):
        phase = practice.stage.phase_at(step)
        return "phone" if not phase.ctc else "ctc" if not phase.transducer else "transducer"

    fixed_times(monkeypatch, seconds_of)
    assert rehearse(asked, 0.5).seconds == pytest.approx(2 * 1 + 3 * 10 + 5 * 100)


@pytest.mark.parametrize("pattern", ["channel", "unstructured", "layers", "small"])
def test_real_steps_of_every_pattern(pattern, config):
    rehearsed = rehearse(config(pattern, 0.3), 0.3)
    assert rehearsed.dense > 0 < rehearsed.final
    assert rehearsed.seconds > 0
    assert rehearsed.peak_bytes > 50e6


def test_why_layers_stay_dense():
    teacher = build_teacher()
    cut = Cut("channel", exclude=["attention", "front.first"])
    dense = list_dense(teacher, cut_at_once(teacher, cut, 0.2), cut)
    assert dense["encoder.layers.0.attention.query"] == "excluded"
    shares = "shares its channels with a layer that keeps them"
    assert dense["encoder.front.second"] == shares, (
        "its inputs are front.first's, its outputs attention's"
    )
    assert "encoder.layers.0.feed_forward_in.up" not in dense
    assert explain("joiner.output", Cut("block"), slow=True) == "no faster in blocks"
    assert list_dense(teacher, teacher, Cut("layers")) == {}
    nothing = list_dense(teacher, teacher, Cut("2:4"))
    assert set(nothing) == set(matrices(teacher))
    assert set(nothing.values()) == {"nothing to remove at this sparsity"}


def test_notes_name_some_layers_and_count_the_rest():
    made = planning.Plan(
        sparsity=0.5,
        parameters=(100, 50),
        prunable=(90, 40),
        teacher=planning.Exported(1000, 900, 2.0, 60.0),
        student=planning.Exported(500, 400, 1.0, 50.0),
        chunk_ms=320,
        shapes={},
        layers=[],
        dense=dict.fromkeys("abcde", "excluded"),
        by_sensitivity=True,
        rehearsed=rehearsal.Rehearsed(90.0, 0.2, 0.1, 0.5, 7, 10**9),
        steps=600,
    )
    told = "\n".join(notes(made))
    assert "training: 1 min 30 s (600 steps, 0.20 s each at first, 0.10 s at the end" in told
    assert "7 prunings of 0.50 s" in told
    assert "memory of the training: 1 GB" in told
    assert "dense, excluded: a, b, c and 2 more (--layers)" in told
    assert "settled by the run" in told
