"""The bundle folder: whole or not there, described by bundle.json, small."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from compress.models.config import (
    LstmPredictorConfig,
    StatelessPredictorConfig,
    TransducerConfig,
    uniform_conformer,
)
from compress.models.predictors import build_predictor
from compress.models.transducer import Transducer
from export.bundle import check_tokens, merge_layers, update_bundle, write_bundle
from export.errors import ExportError
from streaming.bundle import read_bundle
from streaming.session import open_session
from tests.export.conftest import KINDS, TOKENS, VOCAB_SIZE


def parts(model):
    return model.encoder, model.predictor, model.joiner


@pytest.mark.parametrize("kind", KINDS)
def test_bundle_is_whole_and_loads(kind, bundles, models):
    folder = bundles[kind]
    names = {path.name for path in folder.iterdir()}
    graphs = {f"{g}{p}.onnx" for g in ("encoder", "decoder", "joiner") for p in ("", ".int8")}
    assert names == graphs | {"tokens.txt", "bundle.json", "README.md", "SHA256SUMS"}
    info = read_bundle(folder)
    assert (info.default_precision, info.chunk_frames, info.vocab_size) == ("int8", 16, VOCAB_SIZE)
    assert info.tail_frames == info.chunk_frames
    for precision in info.files:
        session = open_session(info, precision)
        assert session.initial_state(2)[0].shape == (1, 2, info.state_sizes[0])


def test_nothing_of_this_machine_is_inside(bundles):
    for path in bundles["lstm"].iterdir():
        data = path.read_bytes()
        assert str(path.parent.parent).encode() not in data
        assert b"site-packages" not in data


def test_model_card(bundles):
    text = (bundles["conformer"] / "README.md").read_text()
    assert text.startswith("---\n")
    assert "pipeline_tag: automatic-speech-recognition" in text
    assert "from_transducer" in text
    assert "encoder.int8.onnx" in text
    info = read_bundle(bundles["conformer"])
    total = sum((info.folder / name).stat().st_size for name in info.files["int8"].values())
    assert f"| int8, together | {total} |" in text


def test_same_model_gives_the_same_bytes(bundles, models, tmp_path):
    again = tmp_path / "lstm"
    write_bundle(again, *parts(models["lstm"]), TOKENS)
    for path in bundles["lstm"].iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_fp32_only_with_tokenizer_and_facts(models, tmp_path):
    (tmp_path / "learnt.model").write_bytes(b"pieces")
    info = write_bundle(
        tmp_path / "new" / "bundle",
        *parts(models["lstm"]),
        TOKENS,
        quantize="none",
        tokenizer_model=tmp_path / "learnt.model",
        layers=[{"name": "joiner.output", "sparsity": 0.5}],
        measured={"wer": 0.03},
        provenance={"seed": 7},
        card="Made by a test.",
    )
    assert info.default_precision == "fp32"
    assert set(info.files) == {"fp32"}
    assert (info.folder / "bpe.model").read_bytes() == b"pieces"
    assert info.measured == {"wer": 0.03}
    assert info.provenance["seed"] == 7
    assert "torch" in info.provenance["libraries"]
    assert "Made by a test." in (info.folder / "README.md").read_text()
    joiner = next(layer for layer in info.layers if layer["name"] == "joiner.output")
    assert (joiner["sparsity"], joiner["bits"]) == (0.5, 32)


def test_update_keeps_the_graphs(copied_bundle):
    before = (copied_bundle / "encoder.onnx").read_bytes()
    info = update_bundle(copied_bundle, measured={"wer": {"test": 0.02}})
    assert info.measured == {"wer": {"test": 0.02}}
    assert "| test | 2.00 |" in (copied_bundle / "README.md").read_text()
    assert (copied_bundle / "encoder.onnx").read_bytes() == before


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (TOKENS[:-1], "39 tokens for a model of 40"),
        (["<s>", *TOKENS[1:]], "token 0 is '<s>'"),
        ([*TOKENS[:-1], "a b"], "'a b' is empty or holds white space"),
        ([*TOKENS[:-1], TOKENS[1]], "twice"),
    ],
)
def test_wrong_tokens(tokens, message):
    with pytest.raises(ExportError, match=message):
        check_tokens(tokens, VOCAB_SIZE)


def test_a_failed_export_leaves_nothing_behind(models, tmp_path):
    with pytest.raises(ExportError, match="39 tokens for a model of 40"):
        write_bundle(tmp_path / "bundle", *parts(models["lstm"]), TOKENS[:-1])
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_kept(models, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine.txt").write_text("dear")
    with pytest.raises(ExportError, match="exists already: choose another folder"):
        write_bundle(tmp_path / "bundle", *parts(models["lstm"]), TOKENS)
    assert (tmp_path / "bundle" / "mine.txt").read_text() == "dear"


def test_lstm_predictor_is_refused_with_the_fix(models, tmp_path):
    model = models["lstm"]
    predictor = build_predictor(40, LstmPredictorConfig(embedding=8, width=8, joint_width=32))
    with pytest.raises(ExportError, match="stateless predictor"):
        write_bundle(tmp_path / "bundle", model.encoder, predictor, model.joiner, TOKENS)


def test_merge_layers_by_hand():
    found = [{"name": "a", "shape": [2, 2], "sparsity": 0.0, "bits": 8}]
    known = [{"name": "a", "sparsity": 0.5}, {"name": "b", "sparsity": 1.0}]
    assert merge_layers(found, known) == [
        {"name": "a", "shape": [2, 2], "sparsity": 0.5, "bits": 8},
        {"name": "b", "shape": [], "bits": 32, "sparsity": 1.0},
    ]


@pytest.mark.slow
def test_student_of_half_a_million_is_under_a_megabyte(tmp_path):
    encoder = uniform_conformer(
        num_layers=6,
        width=64,
        num_heads=2,
        feed_forward=192,
        joint_width=96,
        subsampling_width=64,
    )
    predictor = StatelessPredictorConfig(width=64, joint_width=96)
    model = Transducer(TransducerConfig(vocab_size=256, encoder=encoder, predictor=predictor))
    tokens = ["<blk>", "<unk>", *(f"▁t{i}" for i in range(2, 256))]
    info = write_bundle(tmp_path / "bundle", *parts(model), tokens)
    num_bytes = sum((info.folder / name).stat().st_size for name in info.files["int8"].values())
    assert num_bytes < 1.4 * model.num_parameters < 1_000_000


def test_export_knows_nothing_of_compress():
    code = "import sys, export.bundle, export.parity, export.validate, export.sherpa\n"
    code += "assert not any(name.partition('.')[0] == 'compress' for name in sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_bundle_json_is_schema_1(bundles):
    values = json.loads((bundles["lstm"] / "bundle.json").read_text())
    names = {field.name for field in dataclasses.fields(read_bundle(bundles["lstm"]))}
    assert set(values) == names - {"folder"}
    assert values["schema"] == 1
