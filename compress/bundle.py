"""`compress export`: a model folder becomes the bundle that a device gets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.checkpoint import load_model
from compress.data.batches import BatchSettings
from compress.data.cuts import read_samples
from compress.data.sets import has_split, real_cuts, spread, synthetic_cuts
from compress.models.joiner import Joiner
from compress.models.predictors import StatelessPredictor
from compress.models.transducer import Transducer
from compress.progress import say
from compress.shrink.layouts import Block, parse_layout
from export.bundle import write_bundle
from export.quantize import Method
from export.targets import TARGETS
from export.wrap import AnyPredictor, Encoder
from streaming.bundle import BundleInfo
from streaming.errors import InputError
from streaming.features import FeatureSettings, FloatArray, compute_features

# Of all sets. Ranges from twice as many others differ by 3 % in the median, 17 % at most (teacher).
CALIBRATION_UTTERANCES = 36


def export_model(
    folder: Path,
    out: Path,
    quantize: Method = "int8",
    provenance: dict[str, Any] | None = None,
    tail_frames: int = BatchSettings.tail_frames,
    target: str = "auto",
    data: Sequence[str] = (),
    seed: int = 0,
) -> BundleInfo:
    """ONNX graphs, tokens and card of the model in `folder`.

    target: of export.targets; auto takes the one that fits predictor and features. data, seed: of
    the speech that static hears before (calibration_speech).
    Raises InputError for a model that does not stream, and for an `out` that exists.
    """
    if target not in ("auto", *TARGETS):
        raise InputError(f"no target {target!r}: use auto, {' or '.join(TARGETS)}")
    model, tokenizer = load_model(folder)
    if out.exists():
        raise InputError(f"{out} exists: choose another --out")
    features = model.config.encoder.feature_settings
    calibration = calibration_speech(features, data, seed) if quantize == "static" else ()
    info = write_bundle(
        out,
        *networks(model),
        tokenizer.tokens(),
        tokenizer_model=folder / "bpe.model",
        name=out.name if out.name != "bundle" else out.resolve().parent.name,
        provenance=provenance or read_provenance(folder),
        layers=pruned_layers(model),
        quantize=quantize,
        calibration=calibration,
        tail_frames=tail_frames,
        block_rows=block_rows(model),
        features=features,
        target=choose_target(model) if target == "auto" else target,
    )
    graphs = len(info.files[info.default_precision])
    size = graph_bytes(out, info) / 1e6
    say(f"  {info.default_precision} bundle: {size:.2f} MB in {graphs} graphs")
    return info


def calibration_speech(
    settings: FeatureSettings, data: Sequence[str], seed: int
) -> list[FloatArray]:
    """Features (T, F) of a few utterances of every set that nobody is judged by: of its dev split,
    else of its train split; of synthetic speech where there is no data."""
    sets = [real_cuts(spec, "dev" if has_split(spec, "dev") else "train") for spec in data]
    sets = sets or [synthetic_cuts(CALIBRATION_UTTERANCES, "dev", seed)]
    share = max(1, CALIBRATION_UTTERANCES // len(sets))
    cuts = [cut for cuts in sets for cut in spread(cuts, share)]
    return [compute_features(read_samples(cut), settings) for cut in cuts]


def pruned_layers(model: Transducer) -> list[dict[str, str]]:
    """The pattern of every pruned matrix, by the name it has in the bundle.

    A Linear's is its module's, an LSTM has two: predictor.lstm.weight_ih_l0 and weight_hh_l0.
    """
    layers = []
    for name, spec in model.config.sparse.items():
        module = model.get_submodule(name)
        matrices = [part for part, weight in module.named_parameters() if weight.ndim > 1]
        paths = [f"{name}.{part}".removesuffix(".weight") for part in matrices]
        layers += [{"name": path, "pattern": spec} for path in paths]
    return layers


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
