"""`--quantize auto`: the cheapest mix of forms within a budget of word errors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from compress.checkpoint import save_model
from compress.cli import run_app
from compress.difference import WerDifference
from compress.quantize.auto import (
    Judge,
    choose_forms,
    find_cheapest,
    forms_of,
    measure_layers,
    settle,
)
from export.bundle import write_bundle
from export.quantize import calibrate
from export.quantize.mixes import Mix
from export.quantize.timing import Times
from streaming import InputError, open_bundle
from streaming.bundle import read_bundle
from streaming.features import FeatureSettings, compute_features
from tests.export.conftest import TOKENS, build_model, make_speech
from tests.export.test_quantize_choice import make
from tests.tiny_teacher import build_teacher, build_tokenizer


def differing(points: float, data: str = "set") -> WerDifference:
    """Whose interval ends at `points`."""
    return WerDifference(data, "auto", 0.1, 0.1, points / 100 - 0.1, -1.0, points / 100, 100)


def line_of_mixes(number: int) -> list[Mix]:
    """Mixes of one layer, each dearer and more exact than the one before."""
    return [Mix((make(i, "int8", number - i, i + 1),)) for i in range(number)]


@pytest.mark.parametrize("number", [1, 2, 3, 10, 37])
def test_the_first_mix_within_the_budget_is_found(number):
    mixes = line_of_mixes(number)
    for wanted in range(number):
        asked = []

        def measure(forms, wanted=wanted, asked=asked):
            place = [forms_of(mix) for mix in mixes].index(forms)
            asked.append(place)
            return [differing(0.1), differing(0.2 if place >= wanted else 0.4, "other")]

        mix, found = find_cheapest(mixes, measure, 0.3)
        assert mixes.index(mix) == wanted
        assert len(found) == 2
        assert len(asked) <= np.log2(number) + 2


def test_without_a_mix_within_the_budget_the_most_exact_is_taken():
    mixes = line_of_mixes(5)
    mix, found = find_cheapest(mixes, lambda forms: [differing(1.0)], 0.3)
    assert mix is mixes[-1]
    assert found[0].high == pytest.approx(0.01)


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """An fp32 bundle that says something, and speech with what it says as the text."""
    model = build_model("lstm", seed=1)
    folder = tmp_path_factory.mktemp("speaking") / "bundle"
    write_bundle(folder, model.encoder, model.predictor, model.joiner, TOKENS, quantize="none")
    sets = {}
    for number in range(2):
        utterances = []
        for seed in range(6):
            samples = make_speech(24000, 10 * number + seed)
            stream = open_bundle(folder).create_stream()
            stream.accept(samples)
            utterances.append((f"u{seed}", samples, stream.finish()))
        sets[f"set{number}/dev"] = utterances
    return folder, sets


@pytest.fixture(scope="module")
def features():
    """To calibrate by."""
    return [compute_features(make_speech(20000, seed), FeatureSettings()) for seed in (50, 51)]


@pytest.fixture(scope="module")
def chosen(speaking, features):
    """budget -> what was chosen, from one measurement; bytes alone count, times would vary."""
    folder, sets = speaking
    info = read_bundle(folder)
    ranges = calibrate(info, features)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Times, "measure", lambda self, graph, names, form: 0.0)
        measured = measure_layers(info, features, ranges)
    return {budget: settle(measured, Judge(info, sets, ranges), budget) for budget in (0.0, 1000.0)}


def test_the_budget_is_kept_and_spent(chosen, speaking):
    folder, _ = speaking
    exact, cheap = chosen[0.0], chosen[1000.0]
    names = {layer["name"] for layer in read_bundle(folder).layers}
    assert exact.forms.keys() == cheap.forms.keys() == names
    assert all(one.high <= 0.0 for one in exact.within)
    assert any(one.difference > 0 for one in cheap.within)
    assert "int4" in cheap.forms.values()
    wide = {name for name, form in exact.forms.items() if form in ("half", "fp32")}
    assert wide > {name for name, form in cheap.forms.items() if form in ("half", "fp32")}


def test_every_wide_layer_says_why(chosen):
    for budget, found in chosen.items():
        known = {layer["name"]: layer for layer in found.layers}
        assert known.keys() == found.forms.keys()
        for name, form in found.forms.items():
            assert ("why" in known[name]) == (form in ("half", "fp32")), (budget, name)


def test_networks_are_judged_alone(chosen):
    alone = chosen[0.0].alone
    assert list(alone) == ["encoder", "predictor", "joiner"]
    assert all([one.data for one in some] == ["set0/dev", "set1/dev"] for some in alone.values())
    assert any(one.difference for some in alone.values() for one in some)


def test_speech_without_words_is_refused(speaking, features):
    folder, sets = speaking
    silent = {"set": [(name, samples, "") for name, samples, _ in sets["set0/dev"]]}
    for nothing in (silent, {}):
        with pytest.raises(InputError, match="give --data with transcripts, or int8"):
            choose_forms(folder, nothing, features, 0.3)


@pytest.mark.slow
def test_export_with_auto(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))
    monkeypatch.setattr("compress.bundle.JUDGED_UTTERANCES", 3)
    save_model(build_teacher(num_layers=1), tmp_path / "model", build_tokenizer(), {})
    options = ["--quantize", "auto", "--max-wer-increase", "0.5", "--out", str(tmp_path / "bundle")]
    assert run_app(["export", str(tmp_path / "model"), *options]) == 0
    info = read_bundle(tmp_path / "bundle")
    assert info.default_precision == "auto"
    assert info.measured["auto"]["max_wer_increase"] == 0.5
    assert {"encoder", "predictor", "joiner"} == info.measured["auto"]["int8_alone"].keys()
    assert all("nats" in layer for layer in info.layers if layer["kind"] == "linear")
    assert "why" in (tmp_path / "bundle" / "bundle.json").read_text()


@pytest.mark.slow
def test_a_run_with_auto(call, tmp_path):
    assert call("--out", "here", "--quantize", "auto", "--max-wer-increase", "0.5") == 0
    report = json.loads((tmp_path / "here" / "report.json").read_text())
    assert all(row["passed"] for row in report["parity"])
    assert "sherpa-onnx auto" in {row["to"] for row in report["parity"]}


def test_a_negative_budget_is_refused(capsys):
    assert run_app(["export", "somewhere", "--quantize", "auto", "--max-wer-increase", "-1"]) == 2
    assert "--max-wer-increase" in capsys.readouterr().err
