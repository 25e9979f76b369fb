"""Bundles to run: three encoders, predictors without and with a state, and one heavy joiner.

Random weights, but the joiner's bias makes blank win as often as in speech: a label in seven frames
of 40 ms.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from compress.models.config import (
    EncoderConfig,
    LstmConfig,
    LstmPredictorConfig,
    PredictorConfig,
    StatelessPredictorConfig,
    TransducerConfig,
    uniform_conformer,
)
from compress.models.transducer import Transducer
from export.bundle import write_bundle
from streaming.features import FloatArray, compute_features

LABELS_PER_FRAME = 1 / 7
ENCODERS = {
    "small": {"num_layers": 4, "width": 64, "num_heads": 2, "feed_forward": 192},
    "middle": {"num_layers": 6, "width": 192, "num_heads": 4, "feed_forward": 768},
    "wide": {"num_layers": 12, "width": 512, "num_heads": 8, "feed_forward": 2048},
}
JOINT = {"small": 128, "middle": 256, "wide": 512, "joiner": 640}
VOCABULARY = {"small": 256, "middle": 256, "wide": 500, "joiner": 4096}
PREDICTORS = {"stateless": "sherpa_lstm", "lstm": "sherpa_nemo"}
MAX_SYMBOLS = {"sherpa_lstm": 1, "sherpa_nemo": 10}
# The smallest encoder with a joiner of 640 x 4096, as large models have it.
SIZES = (*ENCODERS, "joiner")


def write_model(size: str, predictor: str, folder: Path, speech: FloatArray) -> Path:
    """The bundle of one of SIZES with one of PREDICTORS, in fp32 and int8. speech: at 16 kHz."""
    torch.manual_seed(0)
    target = PREDICTORS[predictor]
    model = Transducer(build_config(size, predictor)).eval()
    with torch.no_grad():
        features = compute_features(speech, model.config.encoder.feature_settings)
        balance_(model, features, MAX_SYMBOLS[target])
    vocabulary = ["<blk>", "<unk>", *(f"▁t{i}" for i in range(2, model.config.vocab_size))]
    write_bundle(
        folder, model.encoder, model.predictor, model.joiner, vocabulary, target=target, name=size
    )
    return folder


def build_config(size: str, predictor: str) -> TransducerConfig:
    joint, features = JOINT[size], "nemo" if predictor == "lstm" else "kaldi"
    encoder: EncoderConfig
    if size == "joiner":
        encoder = LstmConfig(
            subsampling_width=32, width=48, joint_width=joint, hidden=[48], features=features
        )
    else:
        encoder = uniform_conformer(**ENCODERS[size], joint_width=joint, features=features)
    memory: PredictorConfig = StatelessPredictorConfig(width=joint, joint_width=joint)
    if predictor == "lstm":
        memory = LstmPredictorConfig(embedding=joint, width=joint, joint_width=joint)
    return TransducerConfig(vocab_size=VOCABULARY[size], encoder=encoder, predictor=memory)


def balance_(model: Transducer, features: FloatArray, max_symbols: int) -> None:
    """Normalises what the joiner reads; biases blank until LABELS_PER_FRAME come out."""
    heard = torch.from_numpy(features)
    model.encoder.front.set_normalisation(heard.mean(0), heard.std(0))
    encoded, _ = model.encoder(heard[None], torch.tensor([len(heard)]))
    deviation, mean = torch.std_mean(encoded[0], dim=0)
    model.encoder.project.weight.div_(deviation[:, None])
    model.encoder.project.bias.sub_(mean).div_(deviation)
    output = model.joiner.output
    output.weight.mul_(8)
    output.bias[1] = -1e4  # <unk> counts as blank in one target only
    low, high = -50.0, 200.0
    for _ in range(12):
        output.bias[0] = (low + high) / 2
        num_labels = count_labels(model, (encoded[0] - mean) / deviation, max_symbols)
        talkative = num_labels > LABELS_PER_FRAME
        low, high = (output.bias[0].item(), high) if talkative else (low, output.bias[0].item())
    output.bias[0] = high


def count_labels(model: Transducer, encoded: Tensor, max_symbols: int) -> float:
    """Labels a frame that greedy search hears in encoded (T, J)."""
    memory, num_labels = model.predictor.empty_memory(1), 0
    predicted, memory = model.predictor.step(torch.tensor([0]), memory)
    for frame in encoded:
        for _ in range(max_symbols):
            best = model.joiner(frame[None], predicted).argmax(-1)
            if not best.item():
                break
            predicted, memory = model.predictor.step(best, memory)
            num_labels += 1
    return num_labels / len(encoded)
