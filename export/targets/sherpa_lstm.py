"""The lstm family of sherpa-onnx with packed state: any encoder, stateless predictor.

    encoder.onnx   x (N, chunk, F), state0 (1, N, S0), state1 (1, N, S1)
                   -> encoder_out (N, S, J), next_state0, next_state1
    decoder.onnx   y (N, context) int64            -> decoder_out (N, J)
    joiner.onnx    encoder_out (N, J), decoder_out (N, J)  -> logit (N, V)

sherpa-onnx takes the state for one LSTM layer's h and c: it makes two zero tensors of the widths in
the metadata and hands them on, whatever they hold. Blank is 0, subsampling 4, at most one symbol a
frame. A missing metadata key ends the whole process there, so validate.py knows this list too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import nn

from export.errors import ExportError
from export.targets.exported import Exported, Interface, export_graphs
from export.wrap import AnyPredictor, Encoder, EncoderExport, Joiner, freeze, is_stateless

SUBSAMPLING = 4  # hard-coded there for time stamps and end-pointing


def export_sherpa_lstm(
    encoder: Encoder,
    predictor: AnyPredictor,
    joiner: Joiner,
    folder: Path,
    block_rows: Mapping[str, Mapping[str, int]] | None = None,
) -> Exported:
    """Writes encoder.onnx, decoder.onnx and joiner.onnx into `folder`.

    block_rows: graph -> layer -> rows a group, the layers to write in their block form.
    Raises ExportError when this family cannot carry the model.
    """
    check_family(encoder)
    if not is_stateless(predictor):
        raise ExportError(
            "target sherpa_lstm needs a stateless predictor, this one carries state: "
            "take target sherpa_nemo"
        )
    modules = lstm_modules(encoder, predictor, joiner)
    sizes = cast(EncoderExport, modules["encoder"]).layout.sizes
    labels = torch.zeros(2, predictor.context, dtype=torch.long)
    with torch.no_grad():
        predicted = modules["decoder"](labels)
        logits = modules["joiner"](predicted, predicted)
    features = torch.zeros(2, encoder.chunk_frames, encoder.num_mel_bins)
    states = {f"state{i}": torch.zeros(1, 2, size) for i, size in enumerate(sizes)}
    interfaces = {
        "encoder": Interface(
            {"x": features, **states},
            ["encoder_out", "next_state0", "next_state1"],
            [0, 1, 1],
            encoder_metadata(encoder.chunk_frames, sizes),
        ),
        "decoder": Interface(
            {"y": labels},
            ["decoder_out"],
            [0],
            {"vocab_size": logits.shape[1], "context_size": predictor.context},
        ),
        "joiner": Interface(
            {"encoder_out": predicted, "decoder_out": predicted}, ["logit"], [0, 0]
        ),
    }
    export_graphs(modules, interfaces, folder, block_rows or {})
    return Exported(
        chunk_frames=encoder.chunk_frames,
        subsampling=encoder.subsampling,
        context_size=predictor.context,
        vocab_size=logits.shape[1],
        state_sizes=sizes,
    )


def lstm_modules(encoder: Encoder, predictor: AnyPredictor, joiner: Joiner) -> dict[str, nn.Module]:
    """The networks as the three graphs compute them, called with the graphs' inputs."""
    return {
        "encoder": EncoderExport(freeze(encoder)),
        "decoder": cast(nn.Module, freeze(predictor)),
        "joiner": cast(nn.Module, freeze(joiner)),
    }


def encoder_metadata(chunk_frames: int, state_sizes: tuple[int, int]) -> dict[str, str | int]:
    """The keys sherpa-onnx reads of an encoder of this family, all of them required."""
    return {
        "model_type": "lstm",
        "num_encoder_layers": 1,
        "T": chunk_frames,
        "decode_chunk_len": chunk_frames,
        "d_model": state_sizes[0],
        "rnn_hidden_size": state_sizes[1],
    }


def check_family(encoder: Encoder) -> None:
    """Raises ExportError for an encoder that the lstm family cannot run."""
    if encoder.subsampling != SUBSAMPLING:
        raise ExportError(
            f"target sherpa_lstm needs subsampling {SUBSAMPLING}, the encoder has "
            f"{encoder.subsampling}: sherpa-onnx hard-codes it for time stamps"
        )
    if encoder.chunk_frames % SUBSAMPLING:
        raise ExportError(f"chunk_frames must be a multiple of {SUBSAMPLING}")
