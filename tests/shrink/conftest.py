"""Small transducers, and the slow twin of a pruned one: dense, with the removed units zeroed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compress.models.config import (
    LstmConfig,
    LstmPredictorConfig,
    StatelessPredictorConfig,
    TransducerConfig,
    uniform_conformer,
)
from compress.models.transducer import Transducer
from streaming.features import SILENCE

CONFIGS = {
    "conformer": TransducerConfig(
        vocab_size=23,
        encoder=uniform_conformer(
            num_layers=2,
            width=48,
            num_heads=3,
            feed_forward=80,
            joint_width=40,
            subsampling_width=32,
            kernel_size=5,
            chunk_frames=8,
            left_context=6,
        ),
        predictor=StatelessPredictorConfig(width=32, joint_width=40),
    ),
    "lstm": TransducerConfig(
        vocab_size=23,
        encoder=LstmConfig(
            subsampling_width=32, width=40, joint_width=48, hidden=[56, 32], chunk_frames=8
        ),
        predictor=LstmPredictorConfig(embedding=24, width=32, joint_width=48),
    ),
}


def random_model(kind: str) -> Transducer:
    """Weights, biases and norms all random, so that a wrong index cannot hide behind a 0 or 1."""
    torch.manual_seed(0)
    return randomise(Transducer(CONFIGS[kind]))


@torch.no_grad()
def randomise(model: Transducer) -> Transducer:
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 or name.endswith("positions"):
            parameter.copy_(torch.randn_like(parameter) * 0.3 + 0.5)
    return model.eval()


@pytest.fixture(params=sorted(CONFIGS))
def model(request):
    return random_model(request.param)


@pytest.fixture
def conformer():
    return random_model("conformer")


def run_model(model):
    """Everything the three networks say about two utterances and their labels."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 29, 80, generator=generator) * 4 - 6
    features[1, 18:] = SILENCE
    labels = torch.randint(1, 23, (2, 7), generator=generator)
    with torch.no_grad():
        encoded, _ = model.encoder(features, torch.tensor([29, 18]))
        return model.joiner(encoded, model.predictor.forward_sequence(labels))


def zero_removed(dense, kept):
    """`dense` with every value outside `kept` set to 0; norms average over kept units only."""
    twin = copy.deepcopy(dense)
    masks = {}
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            masks[name] = torch.zeros(parameter.numel())
            masks[name][kept[name].flatten()] = 1
            parameter.mul_(masks[name].view_as(parameter))
    for name, module in twin.named_modules():
        if isinstance(module, nn.LayerNorm):
            module.forward = masked_norm(module, masks[f"{name}.weight"])
    return twin


def masked_norm(norm, mask):
    def forward(x):
        mean = (x * mask).sum(-1, keepdim=True) / mask.sum()
        variance = ((x - mean).square() * mask).sum(-1, keepdim=True) / mask.sum()
        return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias

    return forward


@pytest.fixture
def slow_twin():
    return zero_removed


@pytest.fixture
def outputs():
    return run_model
