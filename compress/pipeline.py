"""`compress run`: prepare, fit, shrink, compare, quantize, export, verify, report.

    RUN/config.yaml        what was asked for
        shrink/  compare/  export/  ...   a folder a stage: its files, done.json when finished
        targets/           what the teacher says of the training data
        student/           model folder of the student
        quantized/         the student after training with rounding, and its ranges: --quantize qat
        bundle/            what a phone gets
        bundle.pack        the same as one file to download
        bundles/80ms/ ...  the same at other sizes of a chunk, where they were asked for
        bundles.pack       all of them as one file
        report.{html,json,md}

A stage is finished when its done.json holds its key, a hash of the configuration, the teacher's
weights and the stages before; a resumed run skips such stages.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from compress.atomic import write_json
from compress.bundle import export_model, graph_bytes
from compress.bundles import export_chunks, name_chunk
from compress.calibrate import calibrate_blank, shift_blank
from compress.checkpoint import load_model, load_state, save_model
from compress.claim import claim_folder
from compress.config import RunConfig
from compress.curriculum import CurriculumStage
from compress.data.sets import read_utterances, set_name
from compress.distill.lessons import Lesson
from compress.distill.setup import build_teaching
from compress.distill.teaching import Teaching
from compress.evaluate import word_error_rate
from compress.measure import decode_bundle
from compress.models.transducer import Transducer
from compress.progress import say
from compress.quantize.files import save_ranges
from compress.quantize.stage import QuantizeStage
from compress.report.collect import build_report, percentiles, read_curves
from compress.report.render import write_report
from compress.run import Run
from compress.shrink.guard import GuardSettings, WerGuard
from compress.shrink.pruner import slow_blocks
from compress.shrink.sensitivity import measure_shares
from compress.shrink.stage import ShrinkStage
from compress.trainer import train
from compress.verify import read_sets, verify_bundle
from export.bundle import update_bundle
from export.pack import list_zeros, name_pack
from export.pack_several import pack_bundles
from streaming.bundle import BundleInfo


def prepare(run: Run) -> dict[str, Any]:
    """Make or find the data, check that it fits the teacher, and measure the teacher."""
    hours = sum(source.store.seconds for source in run.sources) / 3600
    num_utterances = sum(len(source.store.rows) for source in run.sources)
    say(f"  training data: {hours:.1f} hours, {num_utterances} utterances")
    say(f"  teacher: {run.teacher.num_parameters / 1e6:.2f} M parameters")
    return {"train_hours": hours, "teacher_wer": run.measure_wer(run.teacher)}


def fit(run: Run) -> dict[str, Any]:
    """Which sparsity is asked for, and how much of it each layer bears."""
    config = run.config
    sparsity, measured = config.sparsity, None
    if config.target:
        fitted = run.fit_target(run.some_speech() if config.target_rtf else ())
        sparsity, measured = fitted.sparsity, fitted.measured
        say(f"  sparsity {sparsity:.4f} meets it: {measured:g}")
    if slow := slow_blocks(run.teacher, config.cut()):
        say(f"  {len(slow)} layers stay dense, no block is faster: {shorten(slow)}")
    shares: dict[str, float] = {}
    if config.sensitive:
        shares = measure_shares(run.teacher, config.cut(), run.sampler, sparsity)
    return {"sparsity": sparsity, "measured": measured, "shares": shares}


def shorten(names: list[str]) -> str:
    """The first three, and whether there are more."""
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])


def build_stage(run: Run, lessons: list[Lesson]) -> ShrinkStage | CurriculumStage:
    """A new network for pattern small, else the teacher (or an earlier student) to be pruned."""
    config, recipe, fitted = run.config, run.config.recipe, run.result("fit")
    model = run.teacher, run.tokenizer
    tandem = recipe.tandem if lessons else "none"
    small = config.pattern == "small"
    start = load_model(config.start)[0] if config.start else None
    student = (run.untrained(fitted["sparsity"]), run.tokenizer) if small else model
    targets = run.folder / "targets"
    teaching = build_teaching(lessons, tandem, model, student, run.sampler, targets)
    if small:
        phases = recipe.warm_up.phases(recipe.steps)
        new = CurriculumStage(student[0].config, phases, recipe.chunk_draw)
        new.student.load_state_dict(student[0].state_dict())
        new.model.teaching = teaching
        return new
    stage = ShrinkStage(
        run.teacher,
        fitted["sparsity"],
        recipe.ramp.steps(recipe.steps),
        recipe.schedule,
        teaching,
        config.cut(fitted["shares"]),
        start,
        chunks=recipe.chunk_draw,
    )
    if recipe.guard:
        settings = GuardSettings(**recipe.guard.model_dump())
        settings.check(recipe.schedule)
        measure = partial(run.dev_wer, num_utterances=settings.num_utterances)
        teacher_wer = measure(run.teacher)
        say(f"  teacher on development speech: WER {100 * teacher_wer:.2f} %")
        stage.guard = WerGuard(settings, recipe.steps, teacher_wer, lambda: measure(stage.student))
    return stage


def shrink_with(
    run: Run, folder: Path, lessons: list[Lesson], title: str
) -> tuple[Transducer, float]:
    """The student, and the penalty on blank that it got."""
    stage = build_stage(run, lessons)
    train(stage, run.sampler, run.config.recipe.settings, folder, title, resume=True)
    return stage.student.eval(), settle_blank(run, stage.student)


def settle_blank(run: Run, model: Transducer) -> float:
    """Gives blank's bias the penalty that development speech asks for; returns it."""
    if not run.dev_sets:
        return 0.0
    penalty = calibrate_blank(model, run.dev_sets, run.tokenizer)
    say(f"  penalty on blank, chosen on development speech: {penalty}")
    return penalty


def shrink(run: Run) -> dict[str, Any]:
    """Prune along the ramp while distilling; then go on distilling at the final size."""
    lessons = run.config.recipe.lessons
    student, penalty = shrink_with(run, run.folder / "shrink", lessons, "shrinking")
    sparsity = 1 - student.num_kept / run.teacher.num_parameters
    millions = student.num_kept / 1e6
    say(f"  student: {millions:.3f} M parameters, {100 * sparsity:.1f} % removed")
    record = {"teacher": run.config.teacher, "sparsity": sparsity, "seed": run.config.recipe.seed}
    save_model(student, run.folder / "student", run.tokenizer, record)
    return {
        "parameters": student.num_kept,
        "prunable_sparsity": 1 - num_prunable(student) / num_prunable(run.teacher),
        "total_sparsity": sparsity,
        "blank_penalty": penalty,
        "wer": run.measure_wer(student),
    }


def num_prunable(model: Transducer) -> int:
    """Values left in matrices other than the embedding: nobody prunes biases and norms."""
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)
    zeros = model.num_parameters - model.num_kept
    return weights - zeros - model.predictor.embedding.weight.numel()


def compare(run: Run) -> dict[str, Any]:
    """The same student, the same steps, without distillation."""
    student, _ = shrink_with(run, run.folder / "compare", [], "without distillation")
    return {"wer": run.measure_wer(student)}


def quantize(run: Run) -> dict[str, Any]:
    """Go on from the student, with the rounding of a qat bundle, into quantized/."""
    recipe, folder = run.config.recipe, run.folder / "quantized"
    student, _ = load_model(run.folder / "student")
    # The loss would unlearn the penalty; what rounding asks for is settled at the end.
    shift_blank(student, run.result("shrink")["blank_penalty"])
    sampler = replace(run.sampler, first_step=recipe.steps)
    stage = QuantizeStage(student, teach_on(run, student), sampler, recipe.steps)
    settings = recipe.qat.settings(recipe.steps, recipe.seed)
    train(stage, sampler, settings, run.folder / "quantize", "rounding", resume=True)
    shift_blank(stage.student, -settle_blank(run, stage.rounded()))
    record = json.loads((run.folder / "student" / "record.json").read_text())
    save_model(stage.student, folder, run.tokenizer, record)
    save_ranges(stage.model.ranges.learned(), folder)
    return {"wer": run.measure_wer(stage.rounded())}


def teach_on(run: Run, student: Transducer) -> Teaching:
    """The lessons of the run from its frozen teacher, with the adapters as shrinking left them."""
    lessons, model = run.config.recipe.lessons, (run.teacher, run.tokenizer)
    targets = run.folder / "targets"
    teaching = build_teaching(
        lessons, "none", model, (student, run.tokenizer), run.sampler, targets
    )
    state = load_state(run.folder / "shrink" / "checkpoint.pt")["stage"]
    weights, prefix = state.get("weights", state), "teaching.adapters."
    adapters = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
    teaching.adapters.load_state_dict(adapters)
    return teaching


def final_student(run: Run) -> Path:
    """The model folder that the bundle is made of."""
    return run.folder / ("quantized" if run.config.quantize == "qat" else "student")


def export(run: Run) -> dict[str, Any]:
    """ONNX graphs, quantised, tokens and card into bundle/, and into bundles/ for each chunk."""
    config, recipe = run.config, run.config.recipe
    student, bundle, bundles = final_student(run), run.folder / "bundle", run.folder / "bundles"
    settings: dict[str, Any] = {
        "quantize": config.quantize,
        "provenance": provenance(run),
        "tail_frames": recipe.batches.tail_frames,
        "data": config.data,
        "seed": recipe.seed,
        "max_wer_increase": config.max_wer_increase,
    }
    shutil.rmtree(bundle, ignore_errors=True)
    info = export_model(student, bundle, **settings)
    if config.bundles_ms:
        shutil.rmtree(bundles, ignore_errors=True)
        export_chunks(student, bundles, config.bundles_ms, **settings)
    if idle := list_zeros(info):
        zeros = sum(layer.zeros for layer in idle)
        say(
            f"  {zeros} zeros in {len(idle)} layers are no speed and no bytes but in the download: "
            f"{shorten([layer.layer for layer in idle])}"
        )
    return {
        "onnx_bytes": graph_bytes(bundle, info),
        "layers": describe_layers(info),
    }


def describe_layers(info: BundleInfo) -> list[dict[str, Any]]:
    """What the report says of each matrix: its pattern, its zeros, and what became of them."""
    idle = {layer.layer for layer in list_zeros(info)}
    described = []
    for layer in info.layers:
        held = {key: layer[key] for key in ("name", "shape", "sparsity", "bits")}
        held |= {"stored": layer.get("form", ""), "why": layer.get("why", "")}
        zeros = "zeros" if layer["name"] in idle else "dense"
        form = "blocks" if "block_rows" in layer else zeros
        described.append(held | {"pattern": layer.get("pattern", "dense"), "form": form})
    return described


def provenance(run: Run) -> dict[str, Any]:
    return {
        "teacher": Path(run.config.teacher).name,
        "data": [set_name(spec) for spec in run.config.data] or ["synthetic"],
        "seed": run.config.recipe.seed,
        "pattern": run.config.pattern,
        "sparsity": run.result("fit")["sparsity"],
        "distill": run.config.recipe.distill,
    }


def verify(run: Run) -> dict[str, Any]:
    """The parity ladder, WER and speed of the shipped files, decoded from audio; then the packs."""
    bundle = run.folder / "bundle"
    found = verify_and_measure(run, bundle, run.folder / "verify")
    if target := run.config.target:
        say(f"  {target.judge(target.measure(bundle, run.some_speech()))}")
    chunks = []
    for chunk_ms in run.config.bundles_ms:
        name = name_chunk(chunk_ms)
        say(f"chunks of {name}")
        other = verify_and_measure(run, run.folder / "bundles" / name, run.folder / "verify" / name)
        shown = {key: other[key] for key in ("wer", "rtf", "onnx_bytes")}
        chunks.append({"size_ms": chunk_ms, **shown})
    if chunks:
        pack_again(run.folder / "bundles")
    return {**found, "packed_bytes": pack_again(bundle), "chunks": chunks}


def verify_and_measure(run: Run, bundle: Path, out: Path) -> dict[str, Any]:
    """Also writes what was measured into the bundle's card."""
    student, _ = load_model(final_student(run))
    seed = run.config.recipe.seed
    rows = verify_bundle(bundle, read_sets(run.test_cuts), out, student, seed)
    measured = measure_bundle(run, bundle)
    shown = {key: measured[key] for key in ("wer", "rtf", "load_ms", "peak_rss_mb")}
    shown["chunk_ms"] = percentiles(measured["chunk_ms"])
    info = update_bundle(bundle, measured=shown)
    return {"parity": rows, "onnx_bytes": graph_bytes(bundle, info), **measured}


def pack_again(folder: Path) -> int:
    """Bytes of the pack beside the bundle, or bundles, in `folder`."""
    pack = name_pack(folder)
    pack.unlink(missing_ok=True)
    packed = pack_bundles(folder, pack)
    say(f"  packed for download: {packed / 1e6:.2f} MB, {pack}")
    return packed


def measure_bundle(run: Run, bundle: Path) -> dict[str, Any]:
    wer: dict[str, Any] = {}
    chunk_ms: list[float] = []
    audio_seconds = decode_seconds = 0.0
    for name, cuts in run.test_cuts.items():
        utterances = read_utterances(cuts)
        decoded = decode_bundle(bundle, utterances)
        rate = word_error_rate([text for _, _, text in utterances], decoded.texts)
        say(f"  {name}: WER {rate} (bundle)")
        wer[name] = asdict(rate)
        chunk_ms += decoded.chunk_ms
        audio_seconds += decoded.seconds_audio
        decode_seconds += decoded.rtf * decoded.seconds_audio
    return {
        "wer": wer,
        "rtf": decode_seconds / max(audio_seconds, 1e-9),
        "chunk_ms": chunk_ms,
        "load_ms": decoded.load_ms,
        "peak_rss_mb": decoded.peak_rss_mb,
    }


def report(run: Run) -> dict[str, Any]:
    """report.{html,json,md} from what the stages left."""
    chunk_ms = run.result("verify")["chunk_ms"]
    path = write_report(run.folder, build_report(run), read_curves(run), chunk_ms)
    say(f"wrote {path}")
    return {}


STAGES: list[tuple[str, Callable[[Run], dict[str, Any]]]] = [
    ("prepare", prepare),
    ("fit", fit),
    ("shrink", shrink),
    ("compare", compare),
    ("quantize", quantize),
    ("export", export),
    ("verify", verify),
    ("report", report),
]


def run_pipeline(config: RunConfig, folder: Path, resume: bool) -> None:
    """Go through STAGES; finished ones are skipped. Raises InputError for a foreign folder."""
    run = Run(config, folder)
    run.check()
    weights = (Path(config.teacher) / "model.safetensors").read_bytes()
    asked = config.model_dump(mode="json") | {"teacher_sha256": hashlib.sha256(weights).hexdigest()}
    claim_folder(asked, folder, resume)
    key = json.dumps(asked)
    wanted = {"compare": config.compare, "quantize": config.quantize == "qat"}
    for name, stage in STAGES:
        if not wanted.get(name, True):
            continue
        key = hashlib.sha256(f"{key} {name}".encode()).hexdigest()
        done = folder / name / "done.json"
        if done.exists() and json.loads(done.read_text())["key"] == key:
            say(f"{name}: done before")
            continue
        say(f"{name}")
        started = time.monotonic()
        result = stage(run)
        seconds = time.monotonic() - started
        write_json(done, {"key": key, "seconds": seconds, "result": result})
