"""A transducer is its three networks and the configuration that rebuilds them."""

from __future__ import annotations

import torch
from torch import nn

from compress.models.config import TransducerConfig
from compress.models.encoders import build_encoder
from compress.models.joiner import Joiner
from compress.models.predictors import build_predictor
from streaming.errors import InputError


class Transducer(nn.Module):
    """encoder, predictor, joiner; `config` always says the present widths."""

    def __init__(self, config: TransducerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.encoder)
        self.predictor = build_predictor(config.vocab_size, config.predictor)
        self.joiner = Joiner(config.encoder.joint_width, config.vocab_size)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def num_kept(self) -> int:
        """Values that were not pruned: all but the zeros of layers that `config.sparse` names."""
        matrices = [
            weight
            for name in self.config.sparse
            for weight in self.get_submodule(name).parameters()
            if weight.ndim > 1
        ]
        return self.num_parameters - sum(int((weight == 0).sum()) for weight in matrices)


def check_same_features(teacher: Transducer, student: TransducerConfig) -> None:
    """Raises InputError when the two hear other features: they are computed once, for both."""
    theirs, ours = teacher.config.encoder, student.encoder
    if theirs.feature_settings != ours.feature_settings:
        raise InputError(
            f"the teacher hears {theirs.features} features of {theirs.num_mel_bins} mel bins, the "
            f"student {ours.features} of {ours.num_mel_bins}: give both the same features"
        )


def outline(config: TransducerConfig) -> Transducer:
    """A network of shapes without values, which costs neither time nor random numbers."""
    with torch.device("meta"):
        return Transducer(config)
