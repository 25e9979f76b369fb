"""What sherpa-onnx asks of each family of streaming transducers (read from its 2.0.1 source).

Names of tensors are free there, order and number are not. A metadata key that is missing ends the
process without an exception; so does an unknown model_type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Metadata = Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """keys: integers the encoder's metadata must hold; lists: comma-separated integers.

    num_states(metadata): float state tensors in, and out again. inputs: further inputs of the
    encoder besides x and the states; counters: how many of those come out again.
    """

    keys: tuple[str, ...]
    lists: tuple[str, ...] = ()
    states: int = 0
    states_per: str | None = None
    states_factor: int = 0
    inputs: int = 0
    counters: int = 0

    def num_states(self, metadata: Metadata) -> int:
        if self.states_per is None:
            return self.states
        values = [int(value) for value in metadata[self.states_per].split(",")]
        per_encoder = self.states_per == "encoder_dims"
        return self.states + self.states_factor * (len(values) if per_encoder else sum(values))


CHUNK = ("T", "decode_chunk_len")
ICEFALL = {
    "lstm": Family((*CHUNK, "num_encoder_layers", "rnn_hidden_size", "d_model"), states=2),
    "conformer": Family(
        (
            *CHUNK,
            "num_encoder_layers",
            "left_context",
            "encoder_dim",
            "pad_length",
            "cnn_module_kernel",
        ),
        states=2,
        inputs=1,
    ),
    "ebranchformer": Family(
        (
            *CHUNK,
            "num_hidden_layers",
            "hidden_size",
            "intermediate_size",
            "csgu_kernel_size",
            "merge_conv_kernel",
            "left_context_len",
            "num_heads",
            "head_dim",
        ),
        states_per="num_hidden_layers",
        states_factor=4,
        inputs=1,
        counters=1,
    ),
    "zipformer": Family(
        CHUNK,
        (
            "encoder_dims",
            "attention_dims",
            "num_encoder_layers",
            "cnn_module_kernels",
            "left_context_len",
        ),
        states_per="encoder_dims",
        states_factor=7,
    ),
    "zipformer2": Family(
        CHUNK,
        (
            "encoder_dims",
            "query_head_dims",
            "value_head_dims",
            "num_heads",
            "num_encoder_layers",
            "cnn_module_kernels",
            "left_context_len",
        ),
        states=2,
        states_per="num_encoder_layers",
        states_factor=6,
    ),
}
NEMO_KEYS = (
    "vocab_size",
    "window_size",
    "chunk_shift",
    "subsampling_factor",
    "pred_rnn_layers",
    "pred_hidden",
    *(f"cache_last_{what}_dim{i}" for what in ("channel", "time") for i in (1, 2, 3)),
)
NEMO_TEXTS = ("normalize_type",)
