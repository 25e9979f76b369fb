"""What a form does to the whole model, what it costs, and which forms go together."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from export.bundle import write_bundle
from export.errors import ExportError
from export.precisions import add_precision
from export.quantize import calibrate
from export.quantize.candidates import Candidate, Choice, Measurements, list_choices
from export.quantize.mixes import explain, list_mixes, lower_hull
from export.quantize.probe import mean_divergence, record
from streaming.bundle import TOKENS_FILE, read_bundle
from streaming.search import silent_tokens
from streaming.session import open_session
from streaming.tokens import read_tokens
from tests.export.conftest import TOKENS
from tests.export.nemo_models import FEATURES, build_nemo_model
from tests.reference import probe as reference

KINDS = ("conformer", "lstm", "nemo")


@pytest.fixture(scope="module")
def places(bundles, tmp_path_factory):
    """Bundles with fp32 and int8 graphs of both targets."""
    model = build_nemo_model("conformer")
    folder = tmp_path_factory.mktemp("choice") / "nemo"
    parts = (model.encoder, model.predictor, model.joiner)
    write_bundle(folder, *parts, TOKENS, features=FEATURES, target="sherpa_nemo")
    return {**bundles, "nemo": folder}


@pytest.fixture(scope="module")
def probes(places, features):
    return {kind: record(read_bundle(places[kind]), features[1:]) for kind in KINDS}


@pytest.mark.parametrize("graph", ["encoder", "decoder", "joiner"])
@pytest.mark.parametrize("kind", KINDS)
def test_divergence_equals_its_slow_twin(kind, graph, places, probes, features):
    info = read_bundle(places[kind])
    exact, int8 = (open_session(info, precision) for precision in ("fp32", "int8"))
    silent = silent_tokens(
        info, read_tokens(info.folder / TOKENS_FILE, info.vocab_size, info.blank_id)
    )
    wanted = reference.divergence(exact, int8, graph, features[1:], silent)
    assert wanted > 1e-6
    assert probes[kind].divergence(graph, int8) == pytest.approx(wanted, rel=1e-3)
    assert probes[kind].divergence(graph, exact) < 1e-9


def test_divergence_by_hand():
    one, other = np.log([[0.5, 0.5]]), np.log([[0.8, 0.2]])
    assert mean_divergence(one, other) == pytest.approx(0.5 * np.log(0.25 / 0.16))
    with pytest.raises(ExportError, match="not finite: keep it fp32"):
        mean_divergence(one, np.array([[np.nan, 0.0]]))


@pytest.fixture(scope="module")
def measured(places, probes, features):
    """kind -> the candidates of its choices; every third choice, to be quick."""
    found = {}
    for kind in KINDS:
        info = read_bundle(places[kind])
        measurements = Measurements(info, probes[kind], calibrate(info, features))
        found[kind] = [measurements.measure(choice) for choice in list_choices(info)[::3]]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_candidates(kind, measured):
    storages = set()
    for candidates in measured[kind]:
        forms = {candidate.form: candidate for candidate in candidates}
        storages.add(candidates[0].choice.storage)
        assert forms["fp32"].nats == 0
        assert all(candidate.bytes < forms["fp32"].bytes for candidate in candidates[:-1])
        assert all(candidate.nats >= 0 for candidate in candidates)
        if "int4" in forms:
            assert forms["half"].nats < forms["int8"].nats < forms["int4"].nats
        if candidates[0].choice.storage in ("linear", "lstm"):
            assert all(candidate.us > 0 for candidate in candidates)
    assert storages & {"linear", "lstm"}


def test_bytes_of_a_mix_are_those_of_its_files(places, measured, tmp_path):
    """The choices that were measured in the forms of a mix, all others in fp32."""
    source = read_bundle(places["conformer"])
    for path in source.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    info = dataclasses.replace(source, folder=tmp_path)
    ranges = calibrate(info, [np.zeros((40, 80), dtype=np.float32)])
    names = {"encoder": "", "decoder": "predictor.", "joiner": "joiner."}
    everything = {
        names[choice.graph] + layer: "fp32"
        for choice in list_choices(info)
        for layer in choice.layers
    }

    def total(forms):
        info_, _ = add_precision(info, "auto", everything | forms, ranges)
        return sum((tmp_path / name).stat().st_size for name in info_.files["auto"].values())

    mix = list_mixes(measured["conformer"])[0]
    forms = {names[c.choice.graph] + n: c.form for c in mix.chosen for n in c.choice.layers}
    exact = sum(candidates[-1].bytes for candidates in measured["conformer"])
    saved = total({}) - total(forms)
    assert exact - mix.bytes == pytest.approx(saved, rel=0.02)


def make(number: int, form: str, nats: float, cost: float) -> Candidate:
    """A candidate whose cost is all bytes."""
    choice = Choice("encoder", (f"layer{number}",), "linear", ("int8", "fp32"), 1)
    return Candidate(choice, form, nats, 0.0, round(1000 * cost))


def test_hull_by_hand():
    points = [(5, 1), (4, 2), (1, 3), (0, 9), (2, 8)]
    candidates = [make(0, "int8", nats, cost) for nats, cost in points]
    hull = lower_hull(candidates, (1.0, 0.0))
    assert [(c.nats, cost / 1000) for c, cost in hull] == [(5, 1), (1, 3), (0, 9)]


def test_every_rate_of_exchange_is_among_the_mixes():
    rng = np.random.default_rng(0)
    measured = []
    for number in range(4):
        some = zip(rng.uniform(0.1, 2, 3), rng.uniform(1, 5, 3), strict=True)
        choice = [make(number, "int8", nats, cost) for nats, cost in some]
        measured.append([*choice, make(number, "fp32", 0.0, 8.0)])
    mixes = list_mixes(measured)
    costs, nats = [m.bytes for m in mixes], [m.nats for m in mixes]
    assert costs == sorted(costs)
    assert nats == sorted(nats, reverse=True)
    assert nats[-1] == 0
    everything = list(itertools.product(*measured))
    assert costs[0] == min(sum(c.bytes for c in chosen) for chosen in everything)
    for rate in np.geomspace(1, 1e6, 60):
        best = min(
            everything, key=lambda m: sum(c.bytes for c in m) + rate * sum(c.nats for c in m)
        )
        assert any(mix.chosen == best for mix in mixes)


def test_wide_layers_are_explained():
    int8, fp32 = make(0, "int8", 0.02, 1), make(0, "fp32", 0.0, 4)
    assert explain([int8, fp32], int8) == ""
    assert explain([int8, fp32], fp32) == (
        "int8 would move the output by 2.0e-02 nats to save 3.0 kB and save 0.0 us a chunk"
    )
    assert "no other form holds it" in explain([fp32], fp32)
