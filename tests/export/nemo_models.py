"""Random transducers with an LSTM predictor that say 0 to 10 labels a frame."""

from __future__ import annotations

import numpy as np
import torch

from compress.models.config import (
    LstmPredictorConfig,
    PredictorConfig,
    StatelessPredictorConfig,
    TransducerConfig,
)
from compress.models.transducer import Transducer
from streaming.features import compute_features, preset_settings
from tests.export.conftest import ENCODERS, VOCAB_SIZE, make_speech

FEATURES = preset_settings("nemo")
# How much the predictor has a say, and how often blank wins against a random history.
SAY = {"conformer": 8.0, "lstm": 4.0}
BLANK_SHARE = 0.7


def build_nemo_model(kind: str, seed: int = 1, stateless: bool = False) -> Transducer:
    """An encoder of tests/export/conftest.py on features of preset nemo."""
    torch.manual_seed(seed)
    predictor: PredictorConfig = LstmPredictorConfig(embedding=16, width=20, joint_width=32)
    if stateless:
        predictor = StatelessPredictorConfig(width=20, joint_width=32)
    encoder = ENCODERS[kind].model_copy(update={"features": "nemo"})
    config = TransducerConfig(vocab_size=VOCAB_SIZE, encoder=encoder, predictor=predictor)
    model = Transducer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.predictor.project.weight.mul_(SAY[kind])
        balance(model, compute_features(make_speech(160000, 9), FEATURES))
    return model


def balance(model: Transducer, features: np.ndarray) -> None:
    """Encodings of mean 0 and deviation 1, and a bias on blank so that it wins its share."""
    heard = torch.from_numpy(features)
    model.encoder.front.set_normalisation(heard.mean(0), heard.std(0))
    encoded, _ = model.encoder(heard[None], torch.tensor([len(heard)]))
    deviation, mean = torch.std_mean(encoded[0], dim=0)
    model.encoder.project.weight.div_(deviation[:, None])
    model.encoder.project.bias.sub_(mean).div_(deviation)
    output = model.joiner.output
    output.weight.mul_(8)
    normal = (encoded[0] - mean) / deviation
    labels = torch.randint(0, VOCAB_SIZE, (1, len(normal) - 1))
    logits = model.joiner(normal, model.predictor.forward_sequence(labels)[0])
    output.bias[0] += (logits[:, 1:].amax(1) - logits[:, 0]).quantile(BLANK_SHARE)
