"""A network with an LSTM predictor on nemo features: searched, trained, pruned, made a bundle."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

import streaming
from compress.checkpoint import load_model, save_model
from compress.cli import run_app
from compress.evaluate import greedy_search
from compress.shrink.small import small_config
from streaming.features import compute_features
from tests.export.conftest import KINDS, make_speech
from tests.export.nemo_models import FEATURES, build_nemo_model
from tests.tiny_teacher import RECIPE, build_teacher

TRAIN = {
    "vocab_size": 48,
    "model": {
        "num_layers": 1,
        "width": 32,
        "num_heads": 2,
        "feed_forward": 48,
        "joint_width": 32,
        "kernel_size": 5,
        "predictor": "lstm",
    },
    "synthetic": {"train": 24, "dev": 8, "test": 8},
    "phases": [{"steps": 2, "ctc": 0.5, "transducer": 1.0}],
    "batch": {"seconds": 6},
}


def search_slowly(model, encoded, max_symbols):
    """encoded (T, J) of one utterance -> its tokens; the predictor hears all labels again."""
    tokens = []
    for frame in encoded:
        for _ in range(max_symbols):
            predicted = model.predictor.forward_sequence(torch.tensor([tokens]).long())[:, -1]
            label = int(model.joiner(frame[None], predicted).argmax())
            if label in (0, 1):
                break
            tokens.append(label)
    return tokens


@pytest.mark.parametrize("max_symbols", [1, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_batched_search_equals_the_loop(kind, max_symbols):
    model = build_nemo_model(kind)
    utterances = [compute_features(make_speech(8000 + 3200 * n, n), FEATURES) for n in range(4)]
    heard = [torch.from_numpy(one[: len(one) // 16 * 16]) for one in utterances]  # whole chunks
    lengths = torch.tensor([len(utterance) for utterance in heard])
    padded = torch.nn.utils.rnn.pad_sequence(heard, batch_first=True)
    num_tokens = 0
    for index, tokens in enumerate(greedy_search(model, padded, lengths, max_symbols)):
        with torch.no_grad():
            encoded, num_frames = model.encoder(heard[index][None], lengths[index : index + 1])
            assert tokens == search_slowly(model, encoded[0, : num_frames[0]], max_symbols)
        num_tokens += len(tokens)
    assert num_tokens >= 10


def test_trained_pruned_and_shipped(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(TRAIN))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RECIPE))
    assert run_app(["train", "--recipe", "train.yaml", "--out", "teacher"]) == 0
    model, tokenizer = load_model(tmp_path / "teacher")
    with torch.no_grad():
        model.joiner.output.bias[0] += 6.0  # it knows nothing yet: ten labels a frame are slow
    save_model(model, tmp_path / "teacher", tokenizer, {})
    options = ["--teacher", "teacher", "--recipe", "run.yaml", "--out", "run"]
    assert run_app(["run", "--pattern", "unstructured", "--sparsity", "0.5", *options]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert all(row["passed"] for row in report["parity"])
    info = streaming.open_bundle(tmp_path / "run" / "bundle").info
    assert (info.target, info.features) == ("sherpa_nemo", FEATURES)
    assert info.predictor_shape == (1, 32)
    student, _ = load_model(tmp_path / "run" / "student")
    assert student.config.encoder.features == "nemo"
    assert "predictor.lstm" in student.config.sparse


@pytest.mark.parametrize("kind", ["conformer", "lstm"])
def test_a_small_network_hears_what_its_teacher_hears(kind):
    config = (build_teacher() if kind == "conformer" else build_nemo_model("lstm")).config
    encoder = config.encoder.model_copy(update={"features": "nemo"})
    small = small_config(config.model_copy(update={"encoder": encoder}), 0.5)
    assert small.encoder.features == "nemo"
