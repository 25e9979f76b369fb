"""Several runs in a row: `compress sweep`, its order, its picture, and what it does not repeat."""

from __future__ import annotations

import json
from itertools import product

import pytest
import torch
import yaml

from compress import sweep as sweeping
from compress.cli import run_app
from compress.report.pareto import draw_pareto, pareto_front
from compress.report.pictures import render_picture
from compress.sweep import list_levels, parse_levels, parse_patterns
from streaming.errors import InputError

PNG = b"\x89PNG"


def test_levels_ascend():
    assert parse_levels("0.9, 0.6,.8") == [0.6, 0.8, 0.9]
    assert parse_patterns("channel, block:64") == ["channel", "block:64"]


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_levels, "0.6;0.8", "numbers and commas"),
        (parse_levels, "", "numbers and commas"),
        (parse_levels, "0.6,90", "did you mean 0.9"),
        (parse_levels, "0.6,0.60", "twice"),
        (parse_patterns, "channel,holes", "no pattern 'holes'"),
        (parse_patterns, "channel,channel", "twice"),
    ],
)
def test_bad_lists_are_refused(parse, text, message):
    with pytest.raises(InputError, match=message):
        parse(text)


def test_each_level_goes_on_from_the_one_below(tmp_path):
    levels = list_levels(tmp_path, ["channel", "block:64", "small"], [0.6, 0.9])
    assert [(level.folder.name, level.start and level.start.parent.name) for level in levels] == [
        ("channel-0.6", None),
        ("channel-0.9", "channel-0.6"),
        ("block-64-0.6", None),
        ("block-64-0.9", "block-64-0.6"),
        ("small-0.6", None),
        ("small-0.9", None),
    ]


def better(one, other):
    return one[0] <= other[0] and one[1] <= other[1] and one != other


def test_the_front_is_what_no_point_beats():
    """Slow twin: compare every pair."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        points = [tuple(pair) for pair in torch.randint(0, 6, (8, 2), generator=generator).tolist()]
        front = {points[index] for index in pareto_front(points)}
        assert front == {p for p in points if not any(better(other, p) for other in points)}


@pytest.fixture
def rows():
    return [
        {
            "data": data,
            "pattern": pattern,
            "sparsity": sparsity,
            "removed": sparsity,
            "wer": 0.02 / (1 - sparsity),
            "low": 0.015 / (1 - sparsity),
            "high": 0.03 / (1 - sparsity),
            "words": 100,
            "onnx_bytes": round(1e6 * (1 - sparsity)),
            "packed_bytes": 1000,
            "rtf": 0.01 * (1.2 - sparsity),
        }
        for data, pattern, sparsity in product(
            ["a/test", "b/test"], ["channel", "2:4"], [0.5, 0.75]
        )
    ]


def test_the_picture_has_two_panels_a_set(rows):
    figure = draw_pareto(rows, {"a/test": 0.01})
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    assert titles == ["a/test", "a/test", "b/test", "b/test"]
    assert [axes.get_xlabel() for axes in figure.axes[:2]] == [
        "bytes of the bundle",
        "real-time factor",
    ]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"channel", "2:4", "Pareto front"} <= set(legend)
    assert render_picture(lambda: draw_pareto(rows[:1], {})).startswith(PNG)


@pytest.fixture
def call(tmp_path, teacher, recipe, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))

    def run(*arguments):
        options = ["--recipe", str(recipe), "--teacher", str(teacher), "--out", "here"]
        return run_app(["sweep", *options, *arguments])

    return run


@pytest.fixture
def runs(monkeypatch):
    """Every run writes what a sweep reads, and is noted."""
    made = []

    def run_pipeline(config, folder, resume):
        made.append((config, folder.name, resume))
        rate = {"wer": 0.1, "low": 0.05, "high": 0.2, "words": 10, "utterances": 4}
        report = {
            "teacher": {"parameters": 100, "bytes": 400, "wer": {"synthetic/test": rate}},
            "student": {"total_sparsity": config.sparsity},
            "bundle": {"wer": {"synthetic/test": rate}, "onnx_bytes": 10, "packed_bytes": 5},
        }
        (folder / "report").mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(report))
        (folder / "report" / "done.json").write_text("{}")

    monkeypatch.setattr(sweeping, "run_pipeline", run_pipeline)
    monkeypatch.setattr(sweeping, "measure_rtf", lambda bundles, _: dict.fromkeys(bundles, 0.01))
    return made


def test_levels_run_in_order_and_are_drawn(call, runs, tmp_path, capsys):
    assert call("--sparsity", "0.6,0.3", "--pattern", "channel,unstructured", "--steps", "5") == 0
    names = ["channel-0.3", "channel-0.6", "unstructured-0.3", "unstructured-0.6"]
    assert [name for _, name, _ in runs] == names
    assert [config.sparsity for config, _, _ in runs] == [0.3, 0.6, 0.3, 0.6]
    assert all(config.recipe.steps == 5 for config, _, _ in runs)
    starts = [config.start for config, _, _ in runs]
    students = [str(tmp_path / "here" / name / "student") for name in names]
    assert starts == [None, students[0], None, students[2]]
    sweep = json.loads((tmp_path / "here" / "sweep.json").read_text())
    assert [(row["pattern"], row["sparsity"]) for row in sweep["rows"]] == [
        ("channel", 0.3),
        ("channel", 0.6),
        ("unstructured", 0.3),
        ("unstructured", 0.6),
    ]
    assert sweep["rows"][0]["wer"] == 0.1
    assert sweep["rows"][0]["rtf"] == 0.01
    assert (tmp_path / "here" / "sweep.png").read_bytes().startswith(PNG)
    text = (tmp_path / "here" / "sweep.md").read_text()
    assert "| channel | 30.00 % | 10.00 % [5.00, 20.00] | 10 B | 5 B | 0.0100 |" in text
    assert "10.00 % [5.00, 20.00]" in capsys.readouterr().out


def test_a_finished_sweep_is_only_drawn_again(call, runs, tmp_path):
    options = "--sparsity", "0.3", "--pattern", "channel"
    assert call(*options) == 0
    (tmp_path / "here" / "sweep.png").unlink()
    assert call(*options) == 2, "without --resume the folder is refused"
    assert call(*options, "--resume") == 0
    assert len(runs) == 1
    assert (tmp_path / "here" / "sweep.png").exists()
    assert call("--sparsity", "0.4", "--pattern", "channel", "--resume") == 2, "another sweep"


def test_a_killed_sweep_goes_on_with_the_level_that_was_running(call, runs, tmp_path, monkeypatch):
    options = "--sparsity", "0.3,0.6", "--pattern", "channel"
    original = sweeping.run_pipeline

    def dying(config, folder, resume):
        if config.sparsity == 0.6:
            folder.mkdir()
            raise KeyboardInterrupt
        original(config, folder, resume)

    monkeypatch.setattr(sweeping, "run_pipeline", dying)
    assert call(*options) == 130
    assert not (tmp_path / "here" / "sweep.json").exists()
    monkeypatch.setattr(sweeping, "run_pipeline", original)
    assert call(*options, "--resume") == 0
    assert [(name, resume) for _, name, resume in runs] == [
        ("channel-0.3", False),
        ("channel-0.6", True),
    ]


def test_what_cannot_be_reached_is_named_before_anything_runs(call, runs, tmp_path, capsys):
    assert call("--sparsity", "0.3,0.6,0.999", "--pattern", "channel,2:4") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "not reachable: channel at 0.999, 2:4 at 0.6, 2:4 at 0.999: no layout" in last
    assert not runs
    assert not (tmp_path / "here").exists()


@pytest.mark.slow
def test_two_real_levels(call, tmp_path):
    assert call("--sparsity", "0.3,0.5", "--pattern", "channel") == 0
    here = tmp_path / "here"
    second = yaml.safe_load((here / "channel-0.5" / "config.yaml").read_text())
    assert second["start"] == str(here / "channel-0.3" / "student")
    state = torch.load(here / "channel-0.5" / "shrink" / "checkpoint.pt", weights_only=True)
    assert state["stage"]["first_sparsity"] >= 0.3, "the ramp begins where the first level ended"
    rows = json.loads((here / "sweep.json").read_text())["rows"]
    assert [row["removed"] >= row["sparsity"] for row in rows] == [True, True]
    assert rows[0]["onnx_bytes"] > rows[1]["onnx_bytes"]
    assert all(row["rtf"] > 0 for row in rows)
