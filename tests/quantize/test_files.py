"""ranges.json: what was saved comes back, and anything else is one line that names the fix."""

from __future__ import annotations

import json

import pytest

from compress.quantize.files import RANGES_FILE, load_ranges, save_ranges
from compress.quantize.ranges import linear_layers
from streaming.errors import InputError
from tests.tiny_teacher import build_teacher

MODEL = build_teacher(num_layers=1)
RANGES = {name: (-0.1 - n / 3, n / 7) for n, name in enumerate(sorted(linear_layers(MODEL)))}


def test_what_was_saved_comes_back(tmp_path):
    save_ranges(RANGES, tmp_path)
    assert load_ranges(tmp_path, MODEL) == RANGES
    assert set(RANGES) >= {"encoder.layers.0.attention.key", "joiner.output", "predictor.project"}


def test_without_a_file(tmp_path):
    with pytest.raises(InputError, match=r"no ranges\.json.*compress run --quantize qat"):
        load_ranges(tmp_path, MODEL)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([float("nan"), 1.0], "encoder.project has"),
        ([-1.0, float("inf")], "encoder.project has"),
        ([0.5, 1.0], "low <= 0 <= high"),
        ([-1.0, -0.5], "low <= 0 <= high"),
        ([-1.0], "two finite numbers"),
        ([-1.0, True], "two finite numbers"),
        (["-1", "1"], "two finite numbers"),
        (None, "two finite numbers"),
    ],
)
def test_no_range(ends, message, tmp_path):
    save_ranges(RANGES, tmp_path)
    content = json.loads((tmp_path / RANGES_FILE).read_text())
    content["ranges"]["encoder.project"] = ends
    (tmp_path / RANGES_FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        load_ranges(tmp_path, MODEL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "is cut short: copy it again"),
        (lambda text: "[" * 100_000, "is cut short: copy it again"),
        (lambda text: "[]", "is not of format compress-ranges-1"),
        (lambda text: text.replace("ranges-1", "ranges-9"), "is not of format compress-ranges-1"),
        (lambda text: '{"format": "compress-ranges-1"}', "holds no ranges"),
        (lambda text: text.replace("encoder.project", "encoder.other"), "encoder.other"),
        (lambda text: text.replace('"joiner.output"', '"a"'), "only the file has a layer 'a'"),
    ],
)
def test_a_broken_file(change, message, tmp_path):
    save_ranges(RANGES, tmp_path)
    path = tmp_path / RANGES_FILE
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message) as caught:
        load_ranges(tmp_path, MODEL)
    assert RANGES_FILE in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_layer_too_few(tmp_path):
    save_ranges({name: ends for name, ends in RANGES.items() if name != "joiner.output"}, tmp_path)
    with pytest.raises(InputError, match=r"only the model has a layer 'joiner\.output'"):
        load_ranges(tmp_path, MODEL)
