"""Target sherpa_nemo: LSTM predictors in torch, onnxruntime, streaming/ and sherpa-onnx."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
import torch

import streaming
from compress.bundle import export_model, pruned_layers
from compress.checkpoint import save_model
from compress.cli import run_app
from compress.models.config import LstmPredictorConfig
from export.bundle import check_features, order_tokens, write_bundle
from export.errors import ExportError
from export.parity import ladder
from export.sherpa import compare_with_sherpa
from export.targets.sherpa_nemo import nemo_modules
from export.validate import validate_bundle
from export.wrap import roll_embedding, roll_output
from streaming.bundle import read_bundle, write_sha256sums
from streaming.errors import BundleError
from streaming.features import FeatureSettings, compute_features
from tests.export.conftest import KINDS, KNOWN, TOKENS, VOCAB_SIZE, make_speech
from tests.export.nemo_models import FEATURES, build_nemo_model
from tests.tiny_teacher import build_teacher, build_tokenizer

needs_sherpa = pytest.mark.skipif(
    importlib.util.find_spec("sherpa_onnx") is None, reason="sherpa-onnx is in the extra [dev]"
)


def parts(model):
    return model.encoder, model.predictor, model.joiner


@pytest.fixture(scope="module")
def sounds():
    return [make_speech(8000 + 2777 * seed, seed) for seed in range(12)]


@pytest.mark.parametrize("kind", KINDS)
def test_torch_equals_onnxruntime_over_50_chunks(kind, nemo_models, nemo_bundles, sounds):
    heard = [compute_features(samples, FEATURES) for samples in sounds[:3]]
    # Random weights repeat a label up to ten times: one int8 step more, and ten tokens differ.
    rows = ladder(*parts(nemo_models[kind]), nemo_bundles[kind], heard, min_int8_agreement=0.3)
    assert {row["streams"] for row in rows} == {1, 3}
    for row in rows:
        assert row["passed"], row
        if not row["to"].startswith("onnxruntime int8"):
            assert row["max_error"] <= 1e-4
            assert row["token_agreement"] == 1.0
    compared = {key for row in rows for key in row["errors"]}
    assert {"encoder_out", "next_state0", "next_state1", "next_state2", "decoder_out", "logit"} <= {
        *compared
    }


@needs_sherpa
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_same_tokens_and_times_as_sherpa_onnx(kind, precision, nemo_bundles, sounds):
    row = compare_with_sherpa(nemo_bundles[kind], sounds, precision)
    assert row["passed"], row
    assert row["max_error"] < 1e-4
    assert row["tokens"] > 300


def test_frames_emit_none_one_and_several_symbols(nemo_bundles, sounds):
    found: Counter[int] = Counter()
    for kind in KINDS:
        recognizer = streaming.open_bundle(nemo_bundles[kind], "fp32")
        for samples in sounds:
            frames = Counter(decode(recognizer, samples).timestamps)
            found.update(frames.values())
    assert max(found) == 10, "sherpa-onnx's limit"
    assert found[1] > 20
    assert sum(found[count] for count in range(2, 10)) > 20


def decode(recognizer, samples, piece=1600):
    stream = recognizer.create_stream()
    for start in range(0, len(samples), piece):
        stream.accept(samples[start : start + piece])
    stream.finish()
    return recognizer.get_result_all(stream)


def test_cutting_changes_nothing(nemo_bundles, sounds):
    recognizer = streaming.open_bundle(nemo_bundles["lstm"])
    whole = decode(recognizer, sounds[5], len(sounds[5]))
    assert whole.tokens
    assert decode(recognizer, sounds[5], 777) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_batched_streams_say_what_each_says_alone(kind, nemo_bundles, sounds):
    recognizer = streaming.open_bundle(nemo_bundles[kind], "fp32")
    length = min(map(len, sounds))
    streams = [recognizer.create_stream() for _ in sounds]
    for stream, samples in zip(streams, sounds, strict=True):
        stream.accept_waveform(16000, samples[:length])
        stream.input_finished()
    while recognizer.is_ready(streams[0]):
        recognizer.decode_streams(streams)
    alone = [decode(recognizer, samples[:length]) for samples in sounds]
    assert [recognizer.get_result_all(stream) for stream in streams] == alone
    assert len({tuple(result.tokens) for result in alone}) > 6


def test_reset_makes_a_new_stream_of_it(nemo_bundles, sounds):
    recognizer = streaming.open_bundle(nemo_bundles["conformer"])
    info = recognizer.info
    stream = recognizer.create_stream()
    stream.accept(sounds[4])
    assert any(part.any() for part in stream.state)
    recognizer.reset(stream)
    fresh = recognizer.create_stream()
    assert [part.shape for part in stream.state] == [part.shape for part in fresh.state]
    assert not any(part.any() for part in stream.state)
    assert np.array_equal(stream.search.predicted, fresh.search.predicted)
    assert stream.search.num_frames == 0
    assert stream.segment == 1
    assert stream.start_frame == len(sounds[4]) // 160 // info.chunk_frames * 4


SCRIPT = """
import json, sys
import numpy as np, sherpa_onnx
folder, sounds = sys.argv[1:]
graph = {name: f"{folder}/{name}.onnx" for name in ("encoder", "decoder", "joiner")}
recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
    tokens=f"{folder}/tokens.txt", num_threads=1, **graph
)
rows = []
for samples in np.load(sounds):
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, samples)
    row = {"segments": [], "frames": np.asarray(stream.get_frames(0, 20)).tolist()}
    for chunks in range(1, 1000):
        if not recognizer.is_ready(stream):
            break
        recognizer.decode_stream(stream)
        if chunks % 7 == 0:
            result = recognizer.get_result_all(stream)
            row["segments"].append([list(result.tokens), list(result.timestamps)])
            recognizer.reset(stream)
    rows.append(row)
print(json.dumps(rows))
"""


@needs_sherpa
def test_resets_and_features_equal_sherpa_onnx(nemo_bundles, tmp_path):
    bundle = nemo_bundles["conformer"]
    sounds = np.array([make_speech(60000, seed) for seed in range(4)])
    np.save(tmp_path / "sounds.npy", sounds)
    command = [sys.executable, "-c", SCRIPT, str(bundle), str(tmp_path / "sounds.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    recognizer = streaming.open_bundle(bundle, "fp32")
    num_tokens = 0
    for samples, row in zip(sounds, json.loads(done.stdout.splitlines()[-1]), strict=True):
        expected = compute_features(samples, FEATURES)[:20]
        assert np.array_equal(np.array(row["frames"], dtype=np.float32).reshape(20, 80), expected)
        assert len(row["segments"]) == 3
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, samples)
        for tokens, timestamps in row["segments"]:
            for _ in range(7):
                recognizer.decode_stream(stream)
            result = recognizer.get_result_all(stream)
            recognizer.reset(stream)
            assert result.tokens == tokens
            np.testing.assert_allclose(result.timestamps, timestamps, atol=1e-5)
            num_tokens += len(tokens)
    assert num_tokens > 100


@needs_sherpa
@pytest.mark.slow
def test_a_stateless_predictor_in_this_family(tmp_path, sounds):
    model = build_nemo_model("lstm", stateless=True)
    info = write_bundle(tmp_path / "bundle", *parts(model), KNOWN, target="sherpa_nemo")
    assert info.context_size == 2
    assert info.predictor_shape == (1, 2)
    rows = ladder(
        *parts(model),
        info.folder,
        [compute_features(samples, FEATURES) for samples in sounds[:3]],
        num_chunks=6,
        min_int8_agreement=0.3,
    )
    assert all(row["passed"] for row in rows), rows
    for precision in ("fp32", "int8"):
        row = compare_with_sherpa(info.folder, sounds, precision)
        assert row["passed"], row
        assert row["tokens"] > 100


def test_what_the_bundle_says(nemo_bundles):
    info = read_bundle(nemo_bundles["lstm"])
    assert (info.target, info.blank_id, info.max_symbols_per_frame) == ("sherpa_nemo", 39, 10)
    assert info.features == FEATURES
    assert info.predictor_shape == (1, 20)
    names = {layer["name"] for layer in info.layers}
    assert {"predictor.lstm.weight_ih_l0", "predictor.embedding", "joiner.output"} <= names
    assert {layer["bits"] for layer in info.layers if "predictor" in layer["name"]} == {8}
    lines = (info.folder / "tokens.txt").read_text().splitlines()
    assert lines[0] == "▁t1 0"
    assert lines[-1] == "<blk> 39"
    assert validate_bundle(info.folder) == []
    metadata = {
        entry.key: entry.value for entry in onnx.load(info.folder / "encoder.onnx").metadata_props
    }
    assert metadata["vocab_size"] == "39", "without blank"
    assert (metadata["pred_rnn_layers"], metadata["pred_hidden"]) == ("1", "20")
    assert metadata["normalize_type"] == "NA"


def test_pruned_lstms_are_named_by_their_matrices(nemo_models, nemo_bundles):
    names = {layer["name"] for layer in read_bundle(nemo_bundles["lstm"]).layers}
    model = copy.deepcopy(nemo_models["lstm"])
    sparse = {"predictor.lstm": "unstructured", "joiner.output": "2:4"}
    model.config = model.config.model_copy(update={"sparse": sparse})
    layers = {layer["name"]: layer["pattern"] for layer in pruned_layers(model)}
    assert layers == {
        "predictor.lstm.weight_ih_l0": "unstructured",
        "predictor.lstm.weight_hh_l0": "unstructured",
        "joiner.output": "2:4",
    }
    assert layers.keys() <= names


def test_a_bundle_whose_shapes_disagree_is_refused(nemo_bundles):
    info = read_bundle(nemo_bundles["lstm"])
    for key, value in (("chunk_frames", 32), ("state_sizes", [7, 1]), ("vocab_size", 41)):
        changed = {**info.__dict__, key: value}
        with pytest.raises(BundleError, match="export the bundle again"):
            streaming.Recognizer(type(info)(**changed))


def test_unknown_is_heard_and_not_shown(nemo_bundles, tmp_path, sounds):
    changed = shutil.copytree(nemo_bundles["lstm"], tmp_path / "bundle")
    tokens = changed / "tokens.txt"
    tokens.write_text(tokens.read_text().replace("▁t1 0", "<unk> 0"))
    write_sha256sums(changed)
    hiding, showing = (streaming.open_bundle(b, "fp32") for b in (changed, nemo_bundles["lstm"]))
    results = [(decode(hiding, samples), decode(showing, samples)) for samples in sounds]
    assert any(" t1" in shown.tokens for _, shown in results)
    for hidden, shown in results:
        assert hidden.tokens == [token for token in shown.tokens if token != " t1"]


def test_blank_moves_last_by_hand():
    assert order_tokens(["<blk>", "a", "b"], 2) == ["a", "b", "<blk>"]
    assert order_tokens(["<blk>", "a", "b"], 0) == ["<blk>", "a", "b"]
    embedding = torch.nn.Module()
    embedding.embedding = torch.nn.Embedding(3, 1)
    embedding.embedding.weight.data = torch.tensor([[0.0], [1.0], [2.0]])
    assert roll_embedding(embedding).embedding.weight.flatten().tolist() == [1, 2, 0]
    with pytest.raises(ExportError, match=r"\.embedding"):
        roll_embedding(torch.nn.Linear(1, 1))
    with pytest.raises(ExportError, match=r"\.output"):
        roll_output(torch.nn.Linear(1, 1))


def test_a_joiner_of_blocks_moves_blank_at_run_time(nemo_models):
    model = nemo_models["lstm"]
    one, other = (
        nemo_modules(*parts(model), blocks)["joiner"] for blocks in ({}, {"joiner": {"output": 8}})
    )
    vectors = torch.randn(2, 5, 32, 1)
    assert torch.equal(other.output.weight, model.joiner.output.weight), "its blocks stay"
    torch.testing.assert_close(one(*vectors), other(*vectors))


def test_features_of_another_preset_are_refused_with_the_fix(nemo_models, tmp_path):
    check_features(FEATURES, "sherpa_nemo")
    with pytest.raises(ExportError, match="take target sherpa_lstm, or train with features: nemo"):
        check_features(FeatureSettings(), "sherpa_nemo")
    with pytest.raises(ExportError, match="take target sherpa_nemo"):
        write_bundle(tmp_path / "bundle", *parts(nemo_models["lstm"]), TOKENS, features=FEATURES)


def save_lstm_model(folder, **changes):
    """A model folder as compress train writes it, its predictor an LSTM."""
    config = build_teacher().config
    encoder = config.encoder.model_copy(update={"features": "nemo", **changes})
    predictor = LstmPredictorConfig(embedding=48, width=48, joint_width=48)
    config = config.model_copy(update={"encoder": encoder, "predictor": predictor})
    torch.manual_seed(0)
    model = type(build_teacher())(config).eval()
    save_model(model, folder, build_tokenizer(), {"seed": 0})
    return folder


@pytest.mark.slow
def test_compress_export_takes_the_target_of_the_predictor(tmp_path, capsys):
    model = save_lstm_model(tmp_path / "model")
    assert run_app(["export", str(model), "--out", str(tmp_path / "bundle")]) == 0
    assert read_bundle(tmp_path / "bundle").target == "sherpa_nemo"
    assert VOCAB_SIZE != streaming.open_bundle(tmp_path / "bundle").info.vocab_size == 48
    capsys.readouterr()
    again = ["export", str(model), "--out", str(tmp_path / "again"), "--target"]
    assert run_app([*again, "sherpa_lstm"]) == 2
    assert "take target sherpa_nemo" in capsys.readouterr().err
    assert run_app([*again, "whisper"]) == 2
    assert "use auto, sherpa_lstm or sherpa_nemo" in capsys.readouterr().err


def test_an_lstm_predictor_on_kaldi_features_is_refused(tmp_path):
    model = save_lstm_model(tmp_path / "model", features="kaldi")
    with pytest.raises(streaming.InputError, match="train it with features: nemo"):
        export_model(model, tmp_path / "bundle")
