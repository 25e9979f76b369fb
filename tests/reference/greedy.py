"""Greedy transducer search in plain loops: one utterance, one frame, one label at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.models.transducer import Transducer

BLANKS = (0, 1)  # blank, and <unk> as sherpa-onnx takes it


@torch.inference_mode()
def encode_stream(model: Transducer, features: Tensor) -> Tensor:
    """features (T, F), T whole chunks -> encoded (T / 4, J), chunk by chunk."""
    encoder = model.encoder
    state, parts = encoder.initial_state(1), []
    for chunk in features.split(encoder.chunk_frames):
        encoded, state = encoder.streaming_forward(chunk[None], state)
        parts.append(encoded[0])
    return torch.cat(parts)


@torch.inference_mode()
def search_frames(model: Transducer, encoded: Tensor, max_symbols: int = 1) -> list[int]:
    """encoded (T, J) of one utterance -> its tokens."""
    context, tokens = [-1, 0], []
    for frame in encoded:
        for _ in range(max_symbols):
            predicted = model.predictor(torch.tensor([context]))
            label = int(model.joiner(frame[None], predicted).argmax())
            if label in BLANKS:
                break
            tokens.append(label)
            context = [*context[1:], label]
    return tokens
