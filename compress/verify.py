"""`compress verify`, and the stage of a run: is a bundle the model it was made of?

    torch whole = torch streaming = onnxruntime fp32 = every other precision = sherpa-onnx

and what each other precision costs in word errors against fp32, on the same utterances. What was
found is written to parity.json; of a step that fails, the inputs are kept beside it.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from compress.atomic import write_json
from compress.bundle import block_rows, networks
from compress.checkpoint import load_model
from compress.data.sets import cuts_to_judge, read_utterances, spread
from compress.difference import Sets, WerDifference, wer_differences
from compress.models.chunks import set_chunk_
from compress.models.transducer import Transducer
from compress.progress import console, say
from export.errors import ExportError
from export.parity import Row, ladder, order_precisions
from export.sherpa import compare_with_sherpa
from export.wrap import StateLayout
from streaming.bundle import BundleInfo, read_bundle
from streaming.errors import InputError
from streaming.features import compute_features

PARITY_FILE = "parity.json"
PARITY_UTTERANCES = 6
SHERPA_UTTERANCES = 12
WER_UTTERANCES = 200  # of each set, that the precisions are compared on
if TYPE_CHECKING:
    from lhotse.cut import Cut


def verify_files(
    bundle: Path,
    model: Path | None,
    data: Sequence[str],
    split: str,
    num: int,
    out: Path,
    seed: int,
    max_wer_increase: float | None,
) -> None:
    """verify_bundle() on the model folder and the data that the command line names."""
    read_bundle(bundle)  # before seconds of reading data
    student = load_model(model)[0] if model else None
    cuts = cuts_to_judge(data, num, split=split)
    verify_bundle(bundle, read_sets(cuts, num), out, student, seed, max_wer_increase)


def read_sets(cuts: Mapping[str, Sequence[Cut]], num: int = WER_UTTERANCES) -> Sets:
    """At most `num` utterances of each set, evenly spaced, with their samples."""
    return {name: read_utterances(spread(some, num)) for name, some in cuts.items()}


def verify_bundle(
    bundle: Path,
    sets: Sets,
    out: Path,
    model: Transducer | None = None,
    seed: int = 0,
    max_wer_increase: float | None = None,
) -> list[Row]:
    """The rows of the ladder, all passed; shown as a table and written to out/parity.json.

    model: the student the bundle was made of, without which the ladder begins at onnxruntime; it is
    set to the bundle's chunk.
    max_wer_increase: points of WER that a precision may lose against fp32.
    Raises InputError when a step fails, naming it and where the evidence lies.
    """
    info = read_bundle(bundle)
    if model is not None:
        check_fits(model, info)
        set_chunk_(model, info.chunk_frames)
    remove_old(out)
    rows = [*climb_ladder(info, sets, out, model, seed), *sherpa_rows(info, sets, out)]
    differences = list(wer_differences(info, sets))
    console.print(ladder_table(rows))
    for difference in differences:
        say(f"  {difference}")
    found = {
        "bundle": info.name,
        "seed": seed,
        "rows": [_finite(row) for row in rows],
        "wer_difference": [asdict(difference) for difference in differences],
    }
    write_json(out / PARITY_FILE, found)
    judge(rows, differences, max_wer_increase, out / PARITY_FILE)
    return rows


def check_fits(model: Transducer, info: BundleInfo) -> None:
    """Raises InputError for a model that the bundle was surely not made of."""
    pairs = {
        "a vocabulary of": (model.config.vocab_size, info.vocab_size),
        "states of": (
            sum(StateLayout(model.encoder.initial_state(1)).sizes),
            sum(info.state_sizes),
        ),
    }
    for what, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise InputError(
                f"the model has {what} {ours}, {info.folder} {theirs}: give the model folder that "
                "the bundle was exported from"
            )


def remove_old(out: Path) -> None:
    """Evidence of an earlier call would speak of another bundle."""
    for path in (out / "evidence").glob("*.npz"):
        path.unlink()


def climb_ladder(
    info: BundleInfo, sets: Sets, out: Path, model: Transducer | None, seed: int
) -> list[Row]:
    assert info.folder is not None
    some = spread([u for utterances in sets.values() for u in utterances], PARITY_UTTERANCES)
    features = [compute_features(samples, info.features) for _, samples, _ in some]
    if model is None:
        say("  no model given: the ladder begins at onnxruntime (--model FOLDER begins at torch)")
    encoder, predictor, joiner = networks(model) if model else (None, None, None)
    rows = ladder(
        encoder,
        predictor,
        joiner,
        info.folder,
        features,
        seed=seed,
        block_rows=block_rows(model) if model else {},
        evidence=out / "evidence",
    )
    return [{**row, "to": f"{row['to']}, batch {row['streams']}"} for row in rows]


def sherpa_rows(info: BundleInfo, sets: Sets, out: Path) -> Iterator[Row]:
    """Every precision in sherpa-onnx, where that is installed."""
    if importlib.util.find_spec("sherpa_onnx") is None:
        say("  sherpa-onnx is not installed: its step is left out (pip install sherpa-onnx)")
        return
    assert info.folder is not None
    some = spread([u for utterances in sets.values() for u in utterances], SHERPA_UTTERANCES)
    samples = [samples for _, samples, _ in some]
    for precision in order_precisions(info):
        try:
            row = compare_with_sherpa(info.folder, samples, precision)
        except ExportError as error:  # its process died
            steps = {"from": f"streaming {precision}", "to": f"sherpa-onnx {precision}"}
            row = {**steps, "max_error": math.nan, "token_agreement": 0.0, "passed": False}
            row["reason"] = str(error)
        if row.get("different"):
            path = out / "evidence" / f"sherpa-{precision}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            heard: dict[str, Any] = {some[i][0]: samples[i] for i in row["different"]}
            np.savez(path, **heard)
            row |= {"evidence": str(path), "reason": f"other tokens in {', '.join(heard)}"}
        yield row


def ladder_table(rows: Sequence[Row]) -> Table:
    """One row a step: whether it passed, largest and mean error, equal tokens."""
    table = Table(box=SIMPLE, collapse_padding=True)
    for title in ("", "from", "to"):
        table.add_column(title, no_wrap=True)
    for title in ("batch", "error", "mean", "tokens"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        mean = row.get("mean_error")
        batch = str(row.get("streams", 1))
        table.add_row(
            "ok" if row["passed"] else "FAILED",
            row["from"],
            row["to"].removesuffix(f", batch {batch}"),
            batch,
            f"{row['max_error']:.1e}",
            "" if mean is None else f"{mean:.1e}",
            f"{100 * row['token_agreement']:.3g} %",
        )
    return table


def judge(
    rows: Sequence[Row],
    differences: Sequence[WerDifference],
    max_wer_increase: float | None,
    where: Path,
) -> None:
    """Raises InputError, in one line, for steps that failed and precisions that lose too much."""
    failed = [describe_failure(row) for row in rows if not row["passed"]]
    if max_wer_increase is not None:
        lost = [d for d in differences if 100 * d.difference > max_wer_increase]
        failed += [
            f"{d.precision} loses {100 * d.difference:.2f} points of WER on {d.data}" for d in lost
        ]
    if failed:
        more = f"; and {len(failed) - 1} more" if failed[1:] else ""
        raise InputError(f"parity failed ({failed[0]}{more}): see {where}")


def describe_failure(row: Row) -> str:
    """The step, the first chunk that differs, and the node, as far as each is known."""
    parts = [f"{row['from']} = {row['to']}"]
    if row.get("first_divergent_chunk") is not None:
        parts.append(f"from chunk {row['first_divergent_chunk']} on")
    if row.get("node"):
        parts.append(f"first in {row['node']}")
    if row.get("reason"):
        parts.append(row["reason"][:200])
    return " ".join(parts)


def _finite(value: Any) -> Any:
    """JSON knows no NaN: null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
