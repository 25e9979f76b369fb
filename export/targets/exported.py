"""What a target leaves behind: three files, and what bundle.json says of them."""

from __future__ import annotations

from dataclasses import dataclass

FILES = {"encoder": "encoder.onnx", "decoder": "decoder.onnx", "joiner": "joiner.onnx"}


@dataclass(frozen=True)
class Exported:
    """What the graphs were built with, as bundle.json needs it."""

    chunk_frames: int
    subsampling: int
    context_size: int
    vocab_size: int
    state_sizes: tuple[int, int]
    blank_id: int = 0
    max_symbols_per_frame: int = 1
