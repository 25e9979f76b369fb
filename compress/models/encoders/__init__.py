"""Streaming encoders; `build_encoder` looks the kind up in ENCODERS."""

from compress.models.config import ConformerConfig, EncoderConfig, LstmConfig
from compress.models.encoders.conformer import ConformerEncoder
from compress.models.encoders.lstm import LstmEncoder

ENCODERS = {ConformerConfig: ConformerEncoder, LstmConfig: LstmEncoder}


def build_encoder(config: EncoderConfig) -> ConformerEncoder | LstmEncoder:
    """The encoder that `config` describes, with fresh weights."""
    return ENCODERS[type(config)](config)
