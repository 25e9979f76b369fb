"""A random 0.1 M Conformer as a model folder, and the recipe of a run that takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from compress.checkpoint import save_model
from compress.data.tokenizer import Tokenizer, train_tokenizer
from compress.models.config import (
    StatelessPredictorConfig,
    TransducerConfig,
    uniform_conformer,
)
from compress.models.transducer import Transducer

RECIPE = {
    "synthetic": {"train": 24, "dev": 8, "test": 8},
    "steps": 6,
    "ramp": {"end_share": 0.5, "every": 1},
    "batch": {"seconds": 6},
}


SENTENCES = ("turn on the light", "one two three four")


def build_tokenizer(sentences: Sequence[str] = SENTENCES) -> Tokenizer:
    return train_tokenizer(sentences, 48)


def build_teacher(seed: int = 0, num_layers: int = 2) -> Transducer:
    """Random weights, the same for the same seed."""
    torch.manual_seed(seed)
    encoder = uniform_conformer(
        num_layers=num_layers,
        width=48,
        num_heads=2,
        feed_forward=96,
        joint_width=48,
        kernel_size=5,
    )
    predictor = StatelessPredictorConfig(width=48, joint_width=48)
    config = TransducerConfig(vocab_size=48, encoder=encoder, predictor=predictor)
    return Transducer(config).eval()


def save_teacher(folder: Path) -> Path:
    """A teacher told to say blank, so that it decodes to nothing and runs are quick."""
    model = build_teacher()
    with torch.no_grad():
        model.joiner.output.bias[0] = 6.0
    save_model(model, folder, build_tokenizer(), {})
    return folder
