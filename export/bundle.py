"""Torch modules -> the folder a device gets (streaming/bundle.py has its schema).

Written beside its place under another name and renamed when complete and valid: a bundle folder
is whole or not there.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx

from export.card import write_card
from export.errors import ExportError
from export.names import split_by_graph
from export.precisions import quantize_bundle
from export.quantize import Method, Ranges
from export.targets import PRESETS, TARGETS
from export.targets.exported import FILES
from export.validate import validate_bundle
from export.whole_folder import check_free, whole_folder
from export.wrap import AnyPredictor, Encoder, Joiner
from streaming.bundle import (
    TOKENS_FILE,
    BundleInfo,
    TensorInfo,
    Tensors,
    read_bundle,
    write_bundle_json,
    write_sha256sums,
)
from streaming.features import FeatureSettings, FloatArray, preset_settings

TOKENIZER_FILE = "bpe.model"
LIBRARIES = ("torch", "onnx", "onnxruntime", "numpy", "kaldi-native-fbank")


def write_bundle(
    folder: Path | str,
    encoder: Encoder,
    predictor: AnyPredictor,
    joiner: Joiner,
    tokens: Sequence[str],
    *,
    tokenizer_model: Path | str | None = None,
    features: FeatureSettings | None = None,
    name: str | None = None,
    layers: Sequence[Mapping[str, Any]] = (),
    measured: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    card: str | None = None,
    quantize: Method = "int8",
    forms: Mapping[str, str] = MappingProxyType({}),
    calibration: Sequence[FloatArray] = (),
    learned: Ranges = MappingProxyType({}),
    per_channel: bool = True,
    block_rows: Mapping[str, int] = MappingProxyType({}),
    target: str = "sherpa_lstm",
    tail_frames: int | None = None,
) -> BundleInfo:
    """Exports, quantises, validates and writes a bundle; returns it as read back.

    tokens: the symbol of every id as in training, `<blk>` first; a target may move it. layers: what
    the caller knows of a layer (by "name", as in the model's state dict without ".weight"), added
    to what the graphs say. quantize: the form of every layer but those in `forms`, and the name of
    the bundle's precision (export/quantize/forms.py). calibration: features (T, F) that static
    hears before, a few dozen utterances, none of those that the bundle is judged by. learned: layer
    -> range of its input, for qat. block_rows: layers of block sparsity that the graphs hold as
    small matrices (sparse.py), path -> rows a group. tail_frames: None takes one chunk.
    Raises ExportError: the folder exists, the model or tokens do not fit the target.
    """
    folder = Path(folder)
    check_free(folder)
    features = features or preset_settings(PRESETS[target], encoder.num_mel_bins)
    check_features(features, target)
    with whole_folder(folder) as part:
        blocks = split_by_graph(block_rows)
        exported = TARGETS[target](encoder, predictor, joiner, part, blocks)
        check_tokens(tokens, exported.vocab_size)
        _write_tokens(order_tokens(tokens, exported.blank_id), part / TOKENS_FILE)
        if tokenizer_model is not None:
            shutil.copyfile(tokenizer_model, part / TOKENIZER_FILE)
        info = BundleInfo(
            name=name or folder.name,
            target=target,
            features=features,
            chunk_frames=exported.chunk_frames,
            subsampling=exported.subsampling,
            vocab_size=exported.vocab_size,
            blank_id=exported.blank_id,
            context_size=exported.context_size,
            max_symbols_per_frame=exported.max_symbols_per_frame,
            tail_frames=exported.chunk_frames if tail_frames is None else tail_frames,
            files={"fp32": dict(FILES)},
            default_precision="fp32",
            tensors=read_tensors(part),
            state_sizes=list(exported.state_sizes),
            folder=part,
            measured=dict(measured or {}),
            provenance={**(provenance or {}), "libraries": library_versions()},
        )
        info, found = quantize_bundle(info, quantize, forms, calibration, learned, per_channel)
        info = dataclasses.replace(info, layers=merge_layers(found, layers))
        complete_bundle(info, part, card)
    return read_bundle(folder)


def update_bundle(
    folder: Path | str,
    *,
    measured: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    card: str | None = None,
) -> BundleInfo:
    """Adds what was measured on a finished bundle to bundle.json and README.md; graphs stay."""
    info = read_bundle(folder)
    info = dataclasses.replace(
        info,
        measured={**info.measured, **(measured or {})},
        provenance={**info.provenance, **(provenance or {})},
    )
    complete_bundle(info, Path(folder), card)
    return read_bundle(folder)


def complete_bundle(info: BundleInfo, folder: Path, card: str | None = None) -> None:
    """Writes bundle.json, README.md and SHA256SUMS; raises ExportError if the bundle is unfit."""
    write_bundle_json(info, folder)
    write_card(info, folder, card)
    write_sha256sums(folder)
    problems = validate_bundle(folder)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ExportError(f"the bundle would not load: {problems[0]}{more}")


def check_tokens(tokens: Sequence[str], vocab_size: int) -> None:
    """Raises ExportError for tokens that sherpa-onnx would exit on or misread."""
    if len(tokens) != vocab_size:
        raise ExportError(
            f"{len(tokens)} tokens for a model of {vocab_size}: give the tokenizer it learnt with"
        )
    if tokens[0] != "<blk>":
        raise ExportError(f"token 0 is {tokens[0]!r}: train the tokenizer with '<blk>' as id 0")
    if len(set(tokens)) < len(tokens):
        raise ExportError("a token is there twice: give the tokenizer's own list")
    for token in tokens:
        if not token or any(letter.isspace() for letter in token):
            raise ExportError(f"token {token!r} is empty or holds white space: write it with ▁")


def check_features(features: FeatureSettings, target: str) -> None:
    """Raises ExportError for features that sherpa-onnx would not compute for the target."""
    if features.preset != PRESETS[target]:
        fitting = " or ".join(name for name, preset in PRESETS.items() if preset == features.preset)
        raise ExportError(
            f"target {target} hears features of preset {PRESETS[target]}, the model learnt "
            f"{features.preset}: take target {fitting}, or train with features: {PRESETS[target]}"
        )


def order_tokens(tokens: Sequence[str], blank_id: int) -> list[str]:
    """Blank, which is first, at `blank_id`: "<blk>", "a", "b" with 2 are "a", "b", "<blk>"."""
    return [*tokens[1 : blank_id + 1], tokens[0], *tokens[blank_id + 1 :]]


def _write_tokens(tokens: Sequence[str], path: Path) -> None:
    lines = [f"{token} {index}\n" for index, token in enumerate(tokens)]
    path.write_text("".join(lines), encoding="utf-8")


def merge_layers(
    found: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Layers of the graphs with what the caller knows on top; unknown names come last."""
    merged = {layer["name"]: dict(layer) for layer in found}
    for layer in known:
        merged.setdefault(layer["name"], {"bits": 32, "shape": []}).update(layer)
    return list(merged.values())


def read_tensors(folder: Path) -> Tensors:
    """graph -> inputs and outputs of the fp32 files, in their order."""
    tensors: Tensors = {}
    for graph, name in FILES.items():
        model = onnx.load(folder / name)
        tensors[graph] = {
            "inputs": [_describe(value) for value in model.graph.input],
            "outputs": [_describe(value) for value in model.graph.output],
        }
    return tensors


def _describe(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    shape: list[int | str] = [d.dim_value or "N" for d in tensor.shape.dim]
    return TensorInfo(name=value.name, shape=shape, dtype=dtype)


def library_versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}
