"""The model card: every item is there, and what it says of loading the bundle works as written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from export.bundle import update_bundle
from export.card import describe_errors
from export.convert import FORMS
from export.loading import environment
from streaming import open_bundle
from streaming.bundle import read_bundle
from tests.export.conftest import make_speech
from tests.export.form_bundles import SOURCES
from tests.export.sherpa_build import compile_client

SETS = {"digits": {"wer": 0.046, "low": 0.0278, "high": 0.0634, "words": 500, "utterances": 500}}
MEASURED = {
    "wer": SETS,
    "rtf": 0.0034,
    "chunk_ms": {"p50": 0.6, "p95": 1.08},
    "load_ms": 31.4,
    "peak_rss_mb": 65.2,
}


def find_code(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card, re.DOTALL)


@pytest.fixture
def place(tmp_path, forms, request):
    """A folder where the bundle lies under the name that its card uses; the card; what is said."""
    folder = forms[request.param]
    info = read_bundle(folder)
    (tmp_path / info.name).symlink_to(folder)
    samples = make_speech(40000, 2)
    soundfile.write(tmp_path / "speech.wav", samples, info.features.sample_rate, "PCM_16")
    heard = soundfile.read(tmp_path / "speech.wav", dtype="float32")[0]
    stream = open_bundle(folder).create_stream()
    stream.accept(heard)
    text = stream.finish()
    assert text
    return tmp_path, (folder / "README.md").read_text(), text


EVERY = [(target, form) for target in SOURCES for form in ("onnx", *FORMS)]


@pytest.mark.parametrize("place", EVERY, indirect=True, ids="-".join)
def test_python_pieces_run(place):
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is in the extra [dev]")
    folder, card, text = place
    load = 'import soundfile\nsamples = soundfile.read("speech.wav", dtype="float32")[0]\n'
    codes = find_code(card, "python")
    assert len(codes) == 2
    for code in codes:
        done = run([sys.executable, "-c", load + code], folder)
        assert done.stdout.strip().lstrip("' ") == text.lstrip("' ")


@pytest.mark.parametrize(
    "place", [(target, "onnx") for target in SOURCES], indirect=True, ids="-".join
)
def test_cpp_piece_compiles_and_runs(place):
    folder, card, text = place
    (code,) = find_code(card, "cpp")
    (folder / "client.cc").write_text(code)
    program = compile_client(folder / "client.cc", folder / "client")
    done = run([str(program), "speech.wav"], folder)
    assert done.stdout.strip().lstrip("' ") == text.lstrip("' ")


@pytest.mark.network
@pytest.mark.parametrize("place", EVERY, indirect=True, ids="-".join)
def test_javascript_piece_runs_in_node(place):
    """WebAssembly, of another release than the wheel: 1.13.8 when this was written."""
    if shutil.which("npm") is None:
        pytest.skip("no Node.js")
    folder, card, text = place
    codes = find_code(card, "js")
    if "external data" in card:
        assert codes == []
        return
    run(["npm", "install", "--no-audit", "--no-fund", "sherpa-onnx@1.13.8"], folder)
    (folder / "client.js").write_text(codes[0])
    done = run(["node", "client.js", "speech.wav"], folder)
    assert done.stdout.splitlines()[-1].strip().lstrip("' ") == text.lstrip("' ")


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment()
    )
    assert done.returncode == 0, done.stderr[-1000:]
    return done


@pytest.mark.parametrize(("target", "form"), EVERY)
def test_every_client_is_told_the_files_of_this_bundle(target, form, forms):
    info = read_bundle(forms[target, form])
    card = (info.folder / "README.md").read_text()
    for language in ("python", "cpp", "kotlin", *(["js"] if form != "external" else [])):
        code = find_code(card, language)[-1]
        for name in info.files[info.default_precision].values():
            assert f'"{info.name}/{name}"' in code
        # The NeMo family is known by its graphs; a model type would choose another.
        typed = re.search("model_?[tT]ype", code) is not None
        assert typed == (target == "sherpa_lstm" and language != "js")
    (swift,) = find_code(card, "swift")
    for name in info.files[info.default_precision].values():
        stem, _, ending = name.rpartition(".")
        assert f'path("{stem}", "{ending}")' in swift
    assert card.count("(not run here)") == (3 if form != "external" else 2)
    assert ("copy the folder to storage first" in card) == (form == "external")
    assert "assetManager" in card or form == "external"


def test_every_item_of_the_card(copied_bundle):
    provenance = {"data": ["synthetic", "digits_fsdd", "mine"], "teacher": "demo-teacher"}
    update_bundle(copied_bundle, measured=MEASURED, provenance=provenance)
    card = (copied_bundle / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["pipeline_tag"] == "automatic-speech-recognition"
    assert "int8" in front["tags"]
    for row in (
        "| digits | 4.60 | 2.78 to 6.34 | 500 |",
        "| a chunk is heard in | 160 ms |",
        "| decoded in, one thread | 0.60 ms, 95 % within 1.08 ms |",
        "| real-time factor | 0.0034 |",
        "| memory, Python included | 65.2 MB |",
        "| digits_fsdd | CC BY-SA 4.0 |",
        "| mine | not known here: that of whoever gave the recordings |",
        "| teacher | demo-teacher |",
    ):
        assert row in card
    size = (copied_bundle / "encoder.int8.onnx").stat().st_size
    assert f"| encoder.int8.onnx | {size} |" in card
    for layer in json.loads((copied_bundle / "bundle.json").read_text())["layers"]:
        shape = " x ".join(map(str, layer["shape"]))
        assert f"| {layer['name']} | {shape} | {layer['bits']} | {layer['form']} |" in card


def test_a_card_without_measurements_says_so(bundles):
    card = (bundles["lstm"] / "README.md").read_text()
    for text in ("Not measured.", "| speed | not measured |", "Nothing is recorded of the data"):
        assert text in card


def test_error_rates_by_hand():
    assert "| all | 3.00 |  |  |" in describe_errors(0.03)
    assert np.all(["| a | 2.00 |" in describe_errors({"a": 0.02}), "Not" in describe_errors(None)])


def test_operators_beyond_the_standard_are_named(forms):
    for form, words in (("onnx", "DynamicQuantizeLSTM"), ("ort", "required_operators_and_types")):
        assert words in (forms["sherpa_nemo", form] / "README.md").read_text()
    card = (forms["sherpa_lstm", "onnx"] / "README.md").read_text()
    assert "standard operators of opset 17 alone" in card
