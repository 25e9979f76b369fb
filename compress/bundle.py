"""`compress export`: a model folder becomes the bundle that a device gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from compress.checkpoint import load_model
from compress.data.batches import BatchSettings
from compress.models.joiner import Joiner
from compress.models.predictors import StatelessPredictor
from compress.models.transducer import Transducer
from compress.progress import say
from compress.shrink.layouts import Block, parse_layout
from export.bundle import write_bundle
from export.targets import TARGETS
from export.wrap import AnyPredictor, Encoder
from streaming.bundle import BundleInfo
from streaming.errors import InputError


def export_model(
    folder: Path,
    out: Path,
    quantize: Literal["int8", "none"] = "int8",
    provenance: dict[str, Any] | None = None,
    tail_frames: int = BatchSettings.tail_frames,
    target: str = "auto",
) -> BundleInfo:
    """ONNX graphs, tokens and card of the model in `folder`.

    target: of export.targets; auto takes the one that fits predictor and features.
    Raises InputError for a model that does not stream, and for an `out` that exists.
    """
    if target not in ("auto", *TARGETS):
        raise InputError(f"no target {target!r}: use auto, {' or '.join(TARGETS)}")
    model, tokenizer = load_model(folder)
    if out.exists():
        raise InputError(f"{out} exists: choose another --out")
    info = write_bundle(
        out,
        *networks(model),
        tokenizer.tokens(),
        tokenizer_model=folder / "bpe.model",
        name=out.name if out.name != "bundle" else out.resolve().parent.name,
        provenance=provenance or read_provenance(folder),
        layers=[{"name": name, "pattern": spec} for name, spec in model.config.sparse.items()],
        quantize=quantize,
        tail_frames=tail_frames,
        block_rows=block_rows(model),
        features=model.config.encoder.feature_settings,
        target=choose_target(model) if target == "auto" else target,
    )
    graphs = len(info.files[info.default_precision])
    size = graph_bytes(out, info) / 1e6
    say(f"  {info.default_precision} bundle: {size:.2f} MB in {graphs} graphs")
    return info


def block_rows(model: Transducer) -> dict[str, int]:
    """module -> rows of a block, for the layers that export computes without their zeros."""
    layouts = {name: parse_layout(spec) for name, spec in model.config.sparse.items()}
    return {name: layout.rows for name, layout in layouts.items() if isinstance(layout, Block)}


def choose_target(model: Transducer) -> str:
    """sherpa_nemo for a predictor with a state or that family's features, else sherpa_lstm.

    Raises InputError for an LSTM predictor on features that its only target does not compute.
    """
    features = model.config.encoder.features
    if isinstance(model.predictor, StatelessPredictor):
        return "sherpa_nemo" if features == "nemo" else "sherpa_lstm"
    if features != "nemo":
        raise InputError(
            f"the model has an LSTM predictor and hears {features} features, which no target has "
            "together: train it with features: nemo in the recipe's model"
        )
    return "sherpa_nemo"


def networks(model: Transducer) -> tuple[Encoder, AnyPredictor, Joiner]:
    """The three networks as a bundle takes them. Raises InputError for what cannot be one."""
    choose_target(model)
    if getattr(model.encoder, "full_context", False):
        raise InputError(
            "the model's encoder hears whole utterances and does not stream: use it as --teacher "
            "of compress train --student one-best-streaming"
        )
    return model.encoder, model.predictor, model.joiner


def graph_bytes(bundle: Path, info: BundleInfo) -> int:
    """Bytes of the graphs that run by default."""
    files = info.files[info.default_precision].values()
    return sum((bundle / name).stat().st_size for name in files)


def read_provenance(folder: Path) -> dict[str, Any]:
    """What the model's record.json says of its training."""
    path = folder / "record.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    return {key: record[key] for key in ("teacher", "data", "seed") if key in record}
