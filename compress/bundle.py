"""`compress export`: a model folder becomes the bundle that a device gets."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.checkpoint import load_model
from compress.data.batches import BatchSettings
from compress.data.cuts import read_samples
from compress.data.sets import (
    has_split,
    read_utterances,
    real_cuts,
    set_name,
    spread,
    synthetic_cuts,
)
from compress.measure import Utterance
from compress.models.chunks import set_chunk_
from compress.models.joiner import Joiner
from compress.models.predictors import StatelessPredictor
from compress.models.transducer import Transducer
from compress.progress import say
from compress.quantize.auto import choose_forms
from compress.quantize.files import load_ranges
from compress.shrink.layouts import Block, parse_layout
from export.bundle import write_bundle
from export.quantize import Method
from export.targets import TARGETS
from export.wrap import AnyPredictor, Encoder
from streaming.bundle import BundleInfo
from streaming.errors import InputError
from streaming.features import FeatureSettings, FloatArray, compute_features

if TYPE_CHECKING:
    from lhotse.cut import Cut

# Of all sets. Ranges from twice as many others differ by 3 % in the median, 17 % at most (teacher).
CALIBRATION_UTTERANCES = 36
JUDGED_UTTERANCES = 1000  # of each set, whose word errors auto counts
MAX_WER_INCREASE = 0.3  # points, of auto


def export_model(
    folder: Path,
    out: Path,
    quantize: Method = "int8",
    provenance: dict[str, Any] | None = None,
    tail_frames: int = BatchSettings.tail_frames,
    target: str = "auto",
    data: Sequence[str] = (),
    seed: int = 0,
    max_wer_increase: float = MAX_WER_INCREASE,
    chunk_frames: int | None = None,
    name: str | None = None,
) -> BundleInfo:
    """ONNX graphs, tokens and card of the model in `folder`.

    target: of export.targets; auto takes the one that fits predictor and features. data, seed: of
    the speech that static hears before, and that auto is judged by (settling_cuts).
    max_wer_increase: points of WER that auto may lose. chunk_frames: None takes the model's own
    chunk. name: None takes that of `out`.
    Raises InputError for a model that does not stream, for qat of one without learned ranges, and
    for an `out` that exists.
    """
    if target not in ("auto", *TARGETS):
        raise InputError(f"no target {target!r}: use auto, {' or '.join(TARGETS)}")
    model, tokenizer = load_model(folder)
    if out.exists():
        raise InputError(f"{out} exists: choose another --out")
    set_chunk_(model, chunk_frames or model.encoder.chunk_frames)
    features = model.config.encoder.feature_settings
    calibration: list[FloatArray] = []
    if quantize in ("static", "auto"):
        calibration = calibration_speech(features, data, seed)
    learned = load_ranges(folder, model) if quantize == "qat" else {}
    encoder, predictor, joiner = networks(model)
    write = partial(
        write_bundle,
        encoder=encoder,
        predictor=predictor,
        joiner=joiner,
        tokens=tokenizer.tokens(),
        learned=learned,
        tokenizer_model=folder / "bpe.model",
        name=name or name_bundle(out),
        provenance=provenance or read_provenance(folder),
        tail_frames=tail_frames,
        block_rows=block_rows(model),
        features=features,
        target=choose_target(model) if target == "auto" else target,
    )
    known: dict[str, Any] = {"layers": pruned_layers(model)}
    if quantize == "auto":
        known = choose_automatically(write, known, calibration, data, seed, max_wer_increase)
    info = write(out, quantize=quantize, calibration=calibration, **known)
    graphs = len(info.files[info.default_precision])
    size = graph_bytes(out, info) / 1e6
    say(f"  {info.default_precision} bundle: {size:.2f} MB in {graphs} graphs")
    return info


def choose_automatically(
    write: Callable[..., BundleInfo],
    known: dict[str, Any],
    calibration: Sequence[FloatArray],
    data: Sequence[str],
    seed: int,
    budget: float,
) -> dict[str, Any]:
    """The forms of layers within a budget of WER, and what became known, for write_bundle."""
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        fp32 = Path(folder) / "fp32"
        write(fp32, quantize="none")
        chosen = choose_forms(fp32, speech_to_judge(data, seed), calibration, budget)
    return {
        "layers": [*known["layers"], *chosen.layers],
        "measured": {"auto": chosen.to_json()},
        "forms": chosen.forms,
    }


def speech_to_judge(data: Sequence[str], seed: int) -> dict[str, list[Utterance]]:
    """Utterances of the sets that calibration_speech hears, to count word errors on."""
    cuts = settling_cuts(data, seed, JUDGED_UTTERANCES)
    return {name: read_utterances(spread(some, JUDGED_UTTERANCES)) for name, some in cuts.items()}


def settling_cuts(data: Sequence[str], seed: int, num_synthetic: int) -> dict[str, list[Cut]]:
    """Speech that settles choices and judges nothing, by set: the dev split of data, else its
    train split; synthetic speech where there is no data."""
    if not data:
        return {"synthetic/dev": synthetic_cuts(num_synthetic, "dev", seed)}
    splits = [(spec, "dev" if has_split(spec, "dev") else "train") for spec in data]
    return {f"{set_name(spec)}/{split}": real_cuts(spec, split) for spec, split in splits}


def name_bundle(folder: Path) -> str:
    """runs/NAME/bundle and runs/NAME/bundles are called NAME, any other folder as it is."""
    inside = folder.name in ("bundle", "bundles")
    return folder.resolve().parent.name if inside else folder.name


def calibration_speech(
    settings: FeatureSettings, data: Sequence[str], seed: int
) -> list[FloatArray]:
    """Features (T, F) of a few utterances of every set that nobody is judged by."""
    sets = settling_cuts(data, seed, CALIBRATION_UTTERANCES).values()
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
    files = info.list_files(info.default_precision)
    return sum((bundle / name).stat().st_size for name in files)


def read_provenance(folder: Path) -> dict[str, Any]:
    """What the model's record.json says of its training."""
    path = folder / "record.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    return {key: record[key] for key in ("teacher", "data", "seed") if key in record}
