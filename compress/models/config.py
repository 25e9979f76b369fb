"""What a transducer looks like, down to the width of every layer.

Widths are stored per layer, because pruning leaves every layer with its own: a pruned model is
the same class with smaller numbers, and is rebuilt from this configuration alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from streaming.features import FeatureSettings, preset_settings

SUBSAMPLING = 4  # sherpa-onnx hard-codes 4 x 10 ms per encoder frame for this family


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ChunkedConfig(Config):
    """What every streaming encoder has: its chunk, the subsampling in front, width and output.

    features: the preset it hears, see streaming/features.py.
    """

    features: Literal["kaldi", "nemo"] = "kaldi"
    num_mel_bins: PositiveInt = 80
    chunk_frames: PositiveInt = 32
    subsampling_width: PositiveInt
    width: PositiveInt
    joint_width: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def feature_settings(self) -> FeatureSettings:
        return preset_settings(self.features, self.num_mel_bins)

    @model_validator(mode="after")
    def chunk_is_whole(self) -> ChunkedConfig:
        if self.chunk_frames % SUBSAMPLING:
            raise ValueError(f"chunk_frames must be a multiple of {SUBSAMPLING}")
        return self


class ConformerLayerWidths(Config):
    """Widths inside one Conformer layer; the residual width belongs to the encoder."""

    num_heads: PositiveInt
    head_dim: PositiveInt
    feed_forward_in: PositiveInt
    convolution: PositiveInt
    feed_forward_out: PositiveInt


class ConformerConfig(ChunkedConfig):
    """A causal chunked Conformer (arXiv 2005.08100, chunk mask as in 2010.11395).

    With `full_context` every frame attends to the whole utterance: a teacher or an offline
    student, which does not stream.
    """

    kind: Literal["conformer"] = "conformer"
    full_context: bool = False
    left_context: PositiveInt = 32
    kernel_size: Annotated[int, Field(ge=2)] = 15
    layers: list[ConformerLayerWidths]


class LstmConfig(ChunkedConfig):
    """A stack of unidirectional LSTM layers after the same subsampling."""

    kind: Literal["lstm"] = "lstm"
    hidden: list[PositiveInt]


class StatelessPredictorConfig(Config):
    """Embedding of the last `context` labels, mixed per channel (arXiv 2109.07513)."""

    kind: Literal["stateless"] = "stateless"
    context: PositiveInt = 2
    width: PositiveInt
    joint_width: PositiveInt


class LstmPredictorConfig(Config):
    """Embedding and one LSTM layer (arXiv 1211.3711)."""

    kind: Literal["lstm"] = "lstm"
    embedding: PositiveInt
    width: PositiveInt
    joint_width: PositiveInt


EncoderConfig = ConformerConfig | LstmConfig
PredictorConfig = StatelessPredictorConfig | LstmPredictorConfig


class TransducerConfig(Config):
    """Encoder, predictor and the size of the vocabulary, blank included.

    sparse: modules whose weights hold zeros that were pruned -> the pattern they lie in:
        "unstructured", "2:4", or "block:64" where 64 output rows share their columns.
    """

    vocab_size: Annotated[int, Field(ge=3)]
    encoder: Annotated[EncoderConfig, Field(discriminator="kind")]
    predictor: Annotated[PredictorConfig, Field(discriminator="kind")]
    sparse: dict[str, Annotated[str, Field(pattern=r"^(unstructured|block:\d+|\d+:\d+)$")]] = {}

    @model_validator(mode="after")
    def widths_agree(self) -> TransducerConfig:
        if self.encoder.joint_width != self.predictor.joint_width:
            raise ValueError("encoder.joint_width and predictor.joint_width must be equal")
        return self


def uniform_conformer(
    *,
    num_layers: int,
    width: int,
    num_heads: int,
    feed_forward: int,
    joint_width: int,
    subsampling_width: int | None = None,
    **settings: Any,
) -> ConformerConfig:
    """A Conformer before any pruning: every layer has the same widths."""
    layer = ConformerLayerWidths(
        num_heads=num_heads,
        head_dim=width // num_heads,
        feed_forward_in=feed_forward,
        convolution=width,
        feed_forward_out=feed_forward,
    )
    return ConformerConfig(
        width=width,
        subsampling_width=subsampling_width or width,
        joint_width=joint_width,
        layers=[layer] * num_layers,
        **settings,
    )
