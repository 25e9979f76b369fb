"""The NeMo family of sherpa-onnx: any encoder, and a predictor with a state, such as an LSTM.

    encoder.onnx   audio_signal (N, F, chunk), length (N,) i64, cache_last_channel (N, 1, 1, S0),
                   cache_last_time (N, 1, 1, S1), cache_last_channel_len (N,) i64
                   -> outputs (N, J, S), encoded_lengths (N,), the three caches
    decoder.onnx   targets (N, 1) i32, target_length (N,) i32, h and c (L, N, P)
                   -> outputs (N, J, 1), prednet_lengths (N,), h, c
    joiner.onnx    encoder_outputs (N, J, 1), decoder_outputs (N, J, 1)  -> logit (N, V)

sherpa-onnx zero-fills the caches in the sizes that the metadata name and hands them on: they hold
the state of wrap.py, and the third counts encoder frames. It hears features of the preset `nemo`,
takes the last id for blank, emits up to 10 symbols a frame, and reads the subsampling for time
stamps. Releases from 1.13.5 on give our tokens; older ones emit one symbol a frame or feed the
predictor twice. A stateless predictor keeps its last labels in h, plus 1, because zero is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.targets.exported import Exported, Interface, export_graphs
from export.wrap import (
    AnyPredictor,
    Encoder,
    EncoderExport,
    Joiner,
    StatefulPredictor,
    freeze,
    is_stateless,
    roll_embedding,
    roll_output,
)

MAX_SYMBOLS = 10  # a frame, hard-coded there


def export_sherpa_nemo(
    encoder: Encoder,
    predictor: AnyPredictor,
    joiner: Joiner,
    folder: Path,
    block_rows: Mapping[str, Mapping[str, int]] | None = None,
) -> Exported:
    """Writes encoder.onnx, decoder.onnx and joiner.onnx into `folder`, blank as the last id.

    block_rows: graph -> layer -> rows a group, the layers to write in their block form.
    Raises ExportError when this family cannot carry the model.
    """
    blocks = block_rows or {}
    if encoder.chunk_frames % encoder.subsampling:
        raise ExportError(f"chunk_frames must be a multiple of {encoder.subsampling}")
    modules = nemo_modules(encoder, predictor, joiner, blocks)
    h, c = empty_memory(predictor, 2)
    labels, lengths = torch.zeros(2, 1, dtype=torch.int32), torch.ones(2, dtype=torch.int32)
    with torch.no_grad():
        predicted = modules["decoder"](labels, lengths, h, c)[0]
        logits = modules["joiner"](predicted, predicted)
    sizes = cast(NemoEncoder, modules["encoder"]).layout.sizes
    interfaces = {
        "encoder": Interface(
            example_inputs(encoder, sizes),
            [
                "outputs",
                "encoded_lengths",
                "cache_last_channel_next",
                "cache_last_time_next",
                "cache_last_channel_next_len",
            ],
            [0, 0, 0, 0, 0],
            encoder_metadata(encoder, sizes, logits.shape[1], (h.shape[0], h.shape[2])),
        ),
        "decoder": Interface(
            {"targets": labels, "target_length": lengths, "h": h, "c": c},
            ["outputs", "prednet_lengths", "next_h", "next_c"],
            [0, 0, 1, 1],
        ),
        "joiner": Interface(
            {"encoder_outputs": predicted, "decoder_outputs": predicted}, ["logit"], [0, 0]
        ),
    }
    export_graphs(modules, interfaces, folder, blocks)
    return Exported(
        chunk_frames=encoder.chunk_frames,
        subsampling=encoder.subsampling,
        context_size=predictor.context if is_stateless(predictor) else 1,
        vocab_size=logits.shape[1],
        state_sizes=sizes,
        blank_id=logits.shape[1] - 1,
        max_symbols_per_frame=MAX_SYMBOLS,
    )


def nemo_modules(
    encoder: Encoder,
    predictor: AnyPredictor,
    joiner: Joiner,
    blocks: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, nn.Module]:
    """The networks as the three graphs compute them, called with the graphs' inputs.

    blocks: graph -> layer -> rows a group, for layers that must keep their rows in order.
    """
    form = NemoStateless if is_stateless(predictor) else NemoPredictor
    last = roll_embedding(freeze(predictor))
    joined: Joiner = freeze(joiner)
    if "output" in (blocks or {}).get("joiner", {}):
        joined_form: type = NemoBlockJoiner
    else:
        joined_form, joined = NemoJoiner, roll_output(joined)
    return {
        "encoder": NemoEncoder(freeze(encoder)),
        "decoder": in_form(cast(nn.Module, last), form),
        "joiner": in_form(cast(nn.Module, joined), joined_form),
    }


def example_inputs(encoder: Encoder, state_sizes: tuple[int, int]) -> dict[str, Tensor]:
    """The encoder's inputs for two streams."""
    return {
        "audio_signal": torch.zeros(2, encoder.num_mel_bins, encoder.chunk_frames),
        "length": torch.full((2,), encoder.chunk_frames),
        "cache_last_channel": torch.zeros(2, 1, 1, state_sizes[0]),
        "cache_last_time": torch.zeros(2, 1, 1, state_sizes[1]),
        "cache_last_channel_len": torch.zeros(2, dtype=torch.long),
    }


def encoder_metadata(
    encoder: Encoder, state_sizes: tuple[int, int], vocab_size: int, memory: tuple[int, int]
) -> dict[str, str | int]:
    """The keys sherpa-onnx reads of an encoder of this family; `memory` is (L, P)."""
    sizes = zip(("channel", "time"), state_sizes, strict=True)
    dims = {
        f"cache_last_{name}_dim{i}": dim
        for name, size in sizes
        for i, dim in enumerate((1, 1, size), 1)
    }
    return {
        "vocab_size": vocab_size - 1,  # blank does not count
        "window_size": encoder.chunk_frames,
        "chunk_shift": encoder.chunk_frames,
        "subsampling_factor": encoder.subsampling,
        "normalize_type": "NA",  # older releases refuse an empty text
        "pred_rnn_layers": memory[0],
        "pred_hidden": memory[1],
        **dims,
    }


class NemoEncoder(EncoderExport):
    """EncoderExport with channels before frames, and caches with the streams first."""

    def forward(  # type: ignore[override]
        self, audio: Tensor, length: Tensor, channel: Tensor, time: Tensor, count: Tensor
    ) -> tuple[Tensor, ...]:
        encoder = cast(Encoder, self.encoder)
        caches = (channel.flatten(1)[None], time.flatten(1)[None])
        encoded, state0, state1 = super().forward(audio.transpose(1, 2), *caches)
        lengths = length // encoder.subsampling
        after = (state[0][:, None, None] for state in (state0, state1))
        return (encoded.transpose(1, 2), lengths, *after, count + encoded.shape[1])


def in_form(module: nn.Module, form: type) -> nn.Module:
    """`module` itself, called as the mixin `form` has it: its weights keep their names."""
    module.__class__ = type(form.__name__, (form, type(module)), {})
    return module


class NemoPredictor:
    """targets (N, 1) i32, target_length (N,), h and c (L, N, P) -> (N, J, 1), lengths, h, c."""

    def forward(self, targets: Tensor, length: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        predicted, h, c = cast(Any, super()).forward(targets, h, c)
        return predicted.unsqueeze(2), length.clone(), h, c


class NemoStateless:
    """The same of a stateless predictor; h (1, N, context) holds its last labels, plus 1."""

    def forward(self, targets: Tensor, length: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        labels = torch.cat([h[0, :, 1:], targets.to(h.dtype) + 1], dim=1)
        predicted = cast(Any, super()).forward((labels - 1).long())
        return predicted.unsqueeze(2), length.clone(), labels[None], c.clone()


class NemoJoiner:
    """Both vectors (N, J, 1) -> logits (N, V)."""

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        return cast(Tensor, cast(Any, super()).forward(encoded.squeeze(2), predicted.squeeze(2)))


class NemoBlockJoiner(NemoJoiner):
    """The same with blank moved at run time: rows of a block must stay where they are."""

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        logits = super().forward(encoded, predicted)
        return torch.cat([logits[:, 1:], logits[:, :1]], dim=1)


def empty_memory(predictor: AnyPredictor, num_streams: int) -> tuple[Tensor, Tensor]:
    """h and c (L, N, P) before the first label."""
    if is_stateless(predictor):
        empty = torch.zeros(1, num_streams, predictor.context)
        return empty, empty.clone()
    h, c = cast(StatefulPredictor, predictor).initial_state(num_streams)
    return h.cpu().float(), c.cpu().float()
