"""The configuration of a model whose layers were pruned, read from its modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compress.models.config import (
    ConformerConfig,
    ConformerLayerWidths,
    LstmConfig,
    LstmPredictorConfig,
    StatelessPredictorConfig,
    TransducerConfig,
)
from compress.models.transducer import Transducer


def read_config(model: Transducer) -> TransducerConfig:
    """`model.config` with the widths that the modules have now."""
    encoder, predictor = model.config.encoder, model.config.predictor
    return TransducerConfig(
        vocab_size=model.config.vocab_size,
        encoder=WIDTHS[type(encoder)](model.encoder, encoder),
        predictor=WIDTHS[type(predictor)](model.predictor, predictor),
        sparse=model.config.sparse,
    )


def conformer_widths(encoder: Any, config: ConformerConfig) -> ConformerConfig:
    layers = [
        ConformerLayerWidths(
            num_heads=layer.attention.num_heads,
            head_dim=layer.attention.head_dim,
            feed_forward_in=layer.feed_forward_in.up.out_features,
            convolution=layer.convolution.depthwise.out_channels,
            feed_forward_out=layer.feed_forward_out.up.out_features,
        )
        for layer in encoder.layers
    ]
    return config.model_copy(update={**front_widths(encoder), "layers": layers})


def lstm_widths(encoder: Any, config: LstmConfig) -> LstmConfig:
    hidden = [layer.hidden_size for layer in encoder.layers]
    return config.model_copy(update={**front_widths(encoder), "hidden": hidden})


def front_widths(encoder: Any) -> dict[str, int]:
    return {
        "subsampling_width": encoder.front.first.out_channels,
        "width": encoder.front.second.out_channels,
        "joint_width": encoder.project.out_features,
    }


def stateless_widths(predictor: Any, config: StatelessPredictorConfig) -> StatelessPredictorConfig:
    update = {
        "width": predictor.embedding.embedding_dim,
        "joint_width": predictor.project.out_features,
    }
    return config.model_copy(update=update)


def lstm_predictor_widths(predictor: Any, config: LstmPredictorConfig) -> LstmPredictorConfig:
    update = {
        "embedding": predictor.embedding.embedding_dim,
        "width": predictor.lstm.hidden_size,
        "joint_width": predictor.project.out_features,
    }
    return config.model_copy(update=update)


WIDTHS: dict[type, Callable[[Any, Any], Any]] = {
    ConformerConfig: conformer_widths,
    LstmConfig: lstm_widths,
    StatelessPredictorConfig: stateless_widths,
    LstmPredictorConfig: lstm_predictor_widths,
}
