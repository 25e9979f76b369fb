"""What a language model is, apart from its weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

VocabSize = Annotated[int, Field(ge=3, le=65_536)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NgramConfig(Strict):
    """An n-gram of `order` tokens: the next one given the order - 1 before it."""

    kind: Literal["ngram"] = "ngram"
    vocab_size: VocabSize
    order: Annotated[int, Field(ge=2, le=5)] = 4


class LstmConfig(Strict):
    """Embedding, LSTM layers of the same width, and the embedding again as the output.

    dropout: of the embedded tokens and of the last layer's output, in training.
    """

    kind: Literal["lstm"] = "lstm"
    vocab_size: VocabSize
    width: Annotated[int, Field(ge=1, le=4096)] = 192
    layers: Annotated[int, Field(ge=1, le=2)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


ModelConfig = Annotated[NgramConfig | LstmConfig, Field(discriminator="kind")]


class FileConfig(Strict):
    """config.json: the model, the tokenizer it belongs to and the weights beside it."""

    format: Literal["compress-lm-1"] = "compress-lm-1"
    model: ModelConfig
    tokenizer_sha256: Sha256
    weights_sha256: Sha256
    weights_bytes: Annotated[int, Field(ge=1, le=2**32)]
