"""The command line. Nothing heavy is imported before a command needs it: --help answers at once.

Exit codes: 0 done, 2 wrong input (one line on stderr), 130 interrupted, 1 our own fault.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from compress.atomic import is_disk_full, write_json
from compress.cli_options import (
    DEMO_TEACHER,
    ChunkMs,
    Data,
    Distill,
    Exclude,
    MaxWerIncrease,
    Noise,
    Out,
    Pattern,
    Quantize,
    RecipeName,
    Resume,
    Seed,
    Sparsity,
    Steps,
    TargetRtf,
    TargetSize,
    Teacher,
    Vad,
    build_run_config,
    choose_folder,
    name_run,
    takes_decoding,
)
from compress.progress import say
from streaming.errors import InputError

app = typer.Typer(
    help="Shrink a streaming speech recogniser until it fits a phone.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
OUR_PACKAGES = ("compress", "export", "streaming")
EXTRAS = {"websockets": "serve"}  # of a missing library; all others belong to train and demo


@contextmanager
def resumable(options: str = "--resume") -> Iterator[None]:
    """Says after Ctrl-C how the command goes on."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted: nothing is lost; add {options} to the same command")
        raise


@app.command(
    epilog="Example: compress run --sparsity 0.9 --data recordings/manifest.jsonl --out runs/mine"
)
def run(
    sparsity: Sparsity = None,
    target_size: TargetSize = None,
    target_rtf: TargetRtf = None,
    teacher: Teacher = DEMO_TEACHER,
    data: Data = None,
    noise: Noise = None,
    pattern: Pattern = "channel",
    exclude: Exclude = None,
    distill: Distill = None,
    quantize: Quantize = "int8",
    max_wer_increase: MaxWerIncrease = 0.3,
    chunk_ms: ChunkMs = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Train the same student without distillation too.")
    ] = False,
    recipe: RecipeName = "run",
    steps: Steps = None,
    seed: Seed = None,
    out: Out = None,
    resume: Resume = False,
) -> None:
    """Shrink a teacher while distilling; write a verified streaming bundle and a report."""
    from compress.shrink.schedule import check_sparsity

    if sparsity is not None:
        check_sparsity(sparsity)  # before seconds of loading
    say(f"compress run: recipe {recipe}, teacher {teacher.name}; loading libraries")
    from compress.models.chunks import parse_chunks
    from compress.pipeline import run_pipeline

    chunks_ms = parse_chunks(chunk_ms) if chunk_ms else []
    config = build_run_config(
        teacher,
        recipe,
        data,
        noise,
        exclude,
        target_size,
        {"sparsity": sparsity, "distill": distill, "steps": steps, "seed": seed},
        pattern=pattern,
        quantize=quantize,
        chunk_ms=chunks_ms,
        max_wer_increase=max_wer_increase,
        compare=compare,
        target_rtf=target_rtf,
    )
    folder = out or choose_folder(name_run(config), resume)
    with resumable(f"--resume --out {folder}"):
        run_pipeline(config, folder, resume)
    say(f"bundle: {folder}/bundle")
    say(f"next: compress transcribe {folder}/bundle FILE.wav, or compress listen {folder}/bundle")


@app.command(epilog="Example: compress plan --pattern block --target-size 800KB")
def plan(
    sparsity: Sparsity = None,
    target_size: TargetSize = None,
    target_rtf: TargetRtf = None,
    teacher: Teacher = DEMO_TEACHER,
    pattern: Pattern = "channel",
    exclude: Exclude = None,
    distill: Distill = None,
    quantize: Quantize = "int8",
    recipe: RecipeName = "run",
    steps: Steps = None,
    layers: Annotated[bool, typer.Option("--layers", help="A line for every layer too.")] = False,
) -> None:
    """Say what a run would give and take: size, speed, memory, hours. Nothing is trained."""
    say(f"compress plan: recipe {recipe}, teacher {teacher.name}; loading libraries")
    from compress.plan import make_plan, show_plan

    config = build_run_config(
        teacher,
        recipe,
        exclude=exclude,
        target_size=target_size,
        changes={"sparsity": sparsity, "distill": distill, "steps": steps},
        pattern=pattern,
        quantize=quantize,
        target_rtf=target_rtf,
    )
    show_plan(make_plan(config), layers)
    say("next: compress run with the same options")


@app.command(epilog="Example: compress sweep --sparsity 0.6,0.8,0.9 --pattern channel,block:64")
def sweep(
    sparsity: Annotated[
        str, typer.Option(help="Levels, separated by commas; each goes on from the one below.")
    ] = "0.6,0.8,0.9,0.95",
    pattern: Annotated[
        str, typer.Option(help="Patterns, separated by commas; see compress run.")
    ] = "channel",
    teacher: Teacher = DEMO_TEACHER,
    data: Data = None,
    noise: Noise = None,
    exclude: Exclude = None,
    distill: Distill = None,
    quantize: Quantize = "int8",
    recipe: RecipeName = "run",
    steps: Annotated[int | None, typer.Option(help="Training steps of each level.")] = None,
    seed: Seed = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/sweep"),
    resume: Resume = False,
) -> None:
    """Run several patterns at several sparsities; draw what accuracy costs in bytes and time."""
    say(f"compress sweep: recipe {recipe}, teacher {teacher.name}; loading libraries")
    from compress.sweep import parse_levels, parse_patterns, run_sweep

    levels, patterns = parse_levels(sparsity), parse_patterns(pattern)
    config = build_run_config(
        teacher,
        recipe,
        data,
        noise,
        exclude,
        changes={"distill": distill, "steps": steps, "seed": seed},
        pattern=patterns[0],
        quantize=quantize,
    )
    with resumable():
        run_sweep(config, patterns, levels, out, resume)
    say(f"next: look at {out}/sweep.png, then compress transcribe {out}/LEVEL/bundle FILE.wav")


@app.command(
    epilog="Example: compress train --student one-best --data recordings/ --out runs/student"
)
def train(
    recipe: Annotated[
        str | None, typer.Option(help="A network from nothing: name or YAML file of a recipe.")
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="A network taught by --teacher: name or YAML file.")
    ] = None,
    teacher: Annotated[
        Path, typer.Option(help="Model folder of the student's teacher; the built-in one.")
    ] = DEMO_TEACHER,
    init: Annotated[
        Path | None, typer.Option(help="Model folder whose weights the training starts from.")
    ] = None,
    data: Data = None,
    noise: Noise = None,
    distill: Annotated[
        str | None, typer.Option(help="Methods and weights, as in one_best=1.0,encoder=0.3@500.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The recipe's by default.")] = None,
    out: Annotated[Path, typer.Option(help="Model folder to write.")] = Path("runs/model"),
    resume: Resume = False,
) -> None:
    """Train a transducer: from nothing by --recipe, or as a teacher's student by --student."""
    if recipe and student:
        raise InputError("--recipe and --student are two ways to train: give one of them")
    name = student or recipe or "demo-teacher"
    say(f"compress train: {name}; loading libraries")
    from compress.claim import claim_folder
    from compress.config import TrainRecipe, read_recipe, validate
    from compress.train import Training, train_recipe

    changes = {"distill": distill, "seed": seed}
    asked_for = {key: value for key, value in changes.items() if value is not None}
    settings = validate(
        TrainRecipe, read_recipe(name, TrainRecipe).model_dump() | asked_for, f"recipe {name}"
    )
    teacher_folder = teacher if student else None
    training = Training(settings, data or [], noise, out, teacher_folder, init)
    _ = training.lessons, training.features  # refuses what is impossible before it writes
    asked = {
        "recipe": settings.model_dump(mode="json"),
        "teacher": str(teacher.resolve()) if student else None,
        "init": str(init.resolve()) if init else None,
        "data": [str(Path(spec).resolve()) for spec in data or []],
        "noise": str(noise.resolve()) if noise else None,
    }
    claim_folder(asked, out, resume)
    with resumable():
        train_recipe(training, resume)
    say(f"wrote {out}")
    say(f"next: compress {f'export {out}' if student else f'run --teacher {out} --sparsity 0.9'}")


@app.command(
    epilog="Example: compress label --data recordings/ --min-confidence 0.7 --out runs/labels"
)
def label(
    data: Annotated[
        list[str], typer.Option(help="Speech without transcripts. Repeat for several sets.")
    ],
    teacher: Annotated[
        Path, typer.Option(help="Model folder; the built-in teacher by default.")
    ] = DEMO_TEACHER,
    split: Annotated[str, typer.Option(help="Which part of data that names splits.")] = "train",
    min_confidence: Annotated[
        float, typer.Option(help="Leave out what the teacher is less sure of, 0 to 1.")
    ] = 0.0,
    beam: Annotated[int, typer.Option(help="Hypotheses the search keeps.")] = 4,
    nbest: Annotated[int, typer.Option(help="Hypotheses that are stored.")] = 4,
    lm: Annotated[
        Path | None, typer.Option(help="Folder of compress train-lm that has a say in the search.")
    ] = None,
    lm_weight: Annotated[float, typer.Option(help="How much of a say.")] = 0.3,
    out: Annotated[Path, typer.Option(help="Folder to write; later --data.")] = Path("runs/labels"),
    resume: Resume = False,
) -> None:
    """Transcribe speech by the teacher, so that a student can learn from it."""
    say(f"compress label: teacher {teacher.name}; loading libraries")
    from compress.label import label_data

    with resumable():
        label_data(
            teacher,
            data,
            out,
            split=split,
            min_confidence=min_confidence,
            beam=beam,
            nbest=nbest,
            lm=lm,
            lm_weight=lm_weight,
            resume=resume,
        )
    say(f"wrote {out}")
    say(f"next: compress train --student one-best-unlabelled --teacher {teacher} --data {out}")


@app.command(
    name="train-lm",
    epilog="Example: compress train-lm --kind ngram --text sentences.txt --out runs/lm",
)
def train_language_model(
    tokenizer: Annotated[
        Path, typer.Option(help="Model folder whose tokens the LM speaks; the built-in teacher's.")
    ] = DEMO_TEACHER,
    kind: Annotated[str, typer.Option(help="ngram or lstm.")] = "ngram",
    text: Annotated[
        list[Path] | None, typer.Option(help="Text file, a sentence a line. Repeat for several.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Transcripts of a data set's train split.")
    ] = None,
    order: Annotated[int, typer.Option(help="Tokens an n-gram sees, 2 to 5.")] = 4,
    steps: Annotated[int, typer.Option(help="Training steps of an LSTM.")] = 2000,
    width: Annotated[int, typer.Option(help="Width of an LSTM.")] = 192,
    layers: Annotated[int, typer.Option(help="Layers of an LSTM, 1 or 2.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the weights and the order of the text.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/lm"),
    resume: Resume = False,
) -> None:
    """Train a language model that sharpens a teacher's targets; on the grammar without text."""
    say(f"compress train-lm: {kind}; loading libraries")
    from compress.train_lm import LmSettings, train_lm

    settings = LmSettings(kind, order, steps, width, layers, seed)
    with resumable():
        train_lm(settings, tokenizer, text or [], data or [], out, resume)
    say(f"wrote {out}")
    if kind == "ngram":
        say(f"next: compress transcribe BUNDLE FILE.wav --lm {out}/lm.arpa")
    say(f"next: lm: {out} below methods, one_best in a copy of compress/recipes/one-best-lm.yaml")


@app.command(name="export", epilog="Example: compress export runs/student --out runs/bundle")
def export_bundle(
    model: Annotated[Path, typer.Argument(help="A model folder, as compress train writes it.")],
    quantize: Quantize = "int8",
    data: Annotated[
        list[str] | None,
        typer.Option(help="Speech that static and auto are settled by; synthetic by default."),
    ] = None,
    max_wer_increase: MaxWerIncrease = 0.3,
    target: Annotated[
        str, typer.Option(help="auto, sherpa_lstm or sherpa_nemo; auto goes by the predictor.")
    ] = "auto",
    chunk_ms: ChunkMs = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/bundle"),
) -> None:
    """Write a streaming bundle of a trained model, or with --chunk-ms a folder of several."""
    say(f"compress export: {model}; loading libraries")
    from compress.bundle import export_model
    from compress.bundles import export_chunks
    from compress.models.chunks import parse_chunks
    from export.quantize import check_method

    settings: dict[str, Any] = {
        "quantize": check_method(quantize),
        "target": target,
        "data": data or [],
        "max_wer_increase": max_wer_increase,
    }
    written = [out]
    if chunk_ms:
        written = export_chunks(model, out, parse_chunks(chunk_ms), **settings)
    else:
        export_model(model, out, **settings)
    for folder in written:
        say(f"wrote {folder}")
    say(f"next: compress transcribe {written[0]} FILE.wav, or compress listen {written[0]}")


@app.command(epilog="Example: compress convert runs/NAME/bundle --to ort --out runs/NAME/ort")
def convert(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle.")],
    to: Annotated[
        str,
        typer.Option(help="ort (minimal builds of onnxruntime) or external (weights beside)."),
    ],
    precision: Annotated[
        str | None, typer.Option(help="The only one to write: fp32, int8, ...; all by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/converted"),
) -> None:
    """Write a bundle's graphs in another form; the same tokens come out."""
    say(f"compress convert: {bundle} to {to}; loading libraries")
    from export.convert import convert_bundle

    info = convert_bundle(bundle, to, out, precision)
    for name in info.files:
        size = sum((out / file).stat().st_size for file in info.list_files(name))
        say(f"  {name}: {size / 1e6:.2f} MB")
    say(f"wrote {out}")
    say(f"next: compress verify {out}, or compress transcribe {out} FILE.wav")


@app.command(epilog="Example: compress validate sherpa-onnx-streaming-zipformer-en")
def validate(
    bundle: Annotated[
        Path, typer.Argument(help="A bundle, or anyone's folder of encoder, decoder and joiner.")
    ],
) -> None:
    """Find what would kill sherpa-onnx or onnxruntime before they load it, each with the fix."""
    from export.describe import inspect_folder

    found = inspect_folder(bundle)
    for problem in found.problems:
        say_error(problem)
    if found.problems:
        raise typer.Exit(2)
    for line in found.description:
        typer.echo(line)
    say(f"next: {found.next_command}")


@app.command(epilog="Example: compress verify runs/NAME/bundle --model runs/NAME/student")
def verify(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle.")],
    model: Annotated[
        Path | None, typer.Option(help="Model folder the bundle was made of; compared with too.")
    ] = None,
    data: Data = None,
    split: Annotated[str, typer.Option(help="Which part of the data.")] = "test",
    num: Annotated[int, typer.Option(min=1, help="Utterances of each set, at most.")] = 200,
    max_wer_increase: Annotated[
        float | None, typer.Option(help="Points of WER a precision may lose against fp32.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of where the streams begin and are reset.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder for parity.json, and evidence of what fails.")
    ] = Path("runs/verify"),
) -> None:
    """Compare torch, onnxruntime in every precision and sherpa-onnx on the same speech."""
    say(f"compress verify: {bundle}; loading libraries")
    from compress.verify import verify_files

    verify_files(bundle, model, data or [], split, num, out, seed, max_wer_increase)
    say(f"wrote {out}/parity.json: every step passed")
    say(f"next: compress transcribe {bundle} FILE.wav, or compress pack {bundle}")


@app.command(epilog="Example: compress pack runs/channel-0.9/bundle")
def pack(
    bundle: Annotated[
        Path, typer.Argument(help="The folder of a bundle, or of several and nothing else.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write; the folder's name with .pack by default.")
    ] = None,
) -> None:
    """Make one small file of a bundle, or of several that share files, for download."""
    from export.pack import name_pack
    from export.pack_several import pack_bundles

    file = out or name_pack(bundle)
    say(f"wrote {file}, {pack_bundles(bundle, file) / 1e6:.2f} MB")
    say(f"next: compress unpack {file} --out FOLDER, where it is needed")


@app.command(epilog="Example: compress unpack bundle.pack --out bundle")
def unpack(
    file: Annotated[Path, typer.Argument(help="A file of compress pack.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; the file's name without .pack by default.")
    ] = None,
) -> None:
    """Make a packed bundle, or several, what it was before, checksums verified."""
    from export.pack import name_folder
    from export.pack_several import unpack_bundles

    folder = out or name_folder(file)
    bundles = [info.folder for info in unpack_bundles(file, folder)]
    for bundle in bundles:
        say(f"wrote {bundle}")
    say(f"next: compress transcribe {bundles[0]} FILE.wav, or compress listen {bundles[0]}")


@app.command(name="eval", epilog="Example: compress eval runs/channel-0.9/bundle --data my_pack")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A bundle or a model folder.")],
    data: Data = None,
    split: Annotated[str, typer.Option(help="Which part of the data.")] = "test",
    num: Annotated[int, typer.Option(help="Synthetic utterances, without --data.")] = 600,
    precision: Annotated[
        str | None, typer.Option(help="Of a bundle: fp32, int8, static or int4.")
    ] = None,
) -> None:
    """Word error rate with its 95 % interval, streaming."""
    say(f"compress eval: {model}; loading libraries")
    from compress.evaluate import evaluate_any

    for name, rate in evaluate_any(model, data or [], split, num, precision).items():
        typer.echo(f"{name}: WER {rate} ({rate.words} words, {rate.utterances} utterances)")


@app.command(epilog="Example: compress bench runs/channel-0.9/bundle --num 50")
def bench(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle.")],
    data: Data = None,
    split: Annotated[str, typer.Option(help="Which part of the data.")] = "test",
    num: Annotated[int, typer.Option(min=1, help="Utterances of each set.")] = 100,
    precision: Annotated[
        str | None, typer.Option(help="fp32, int8, static or int4; the bundle's own.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of onnxruntime.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures into this file too.")
    ] = None,
) -> None:
    """Speed, memory, and how late text comes: first text, every word, the end."""
    say(f"compress bench: {bundle}; loading libraries")
    from compress.bench import bench_bundle, to_lines

    found = bench_bundle(bundle, data or [], split, num, precision, threads)
    for line in to_lines(found):
        typer.echo(line)
    if json_file:
        write_json(json_file, found)
        say(f"wrote {json_file}")


@app.command(epilog="Example: compress report runs/channel-0.9")
def report(folder: Annotated[Path, typer.Argument(help="The folder of a finished run.")]) -> None:
    """Draw a run's report again from its report.json."""
    from compress.report.render import rerender

    say(f"wrote {rerender(folder)}")


@app.command(
    epilog="Example: compress transcribe runs/channel-0.9/bundle talk.wav --format srt, or "
    "ffmpeg -i talk.mp4 -f s16le -ac 1 -ar 16000 - | "
    "compress transcribe runs/channel-0.9/bundle - --sample-rate 16000"
)
@takes_decoding
def transcribe(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle.")],
    files: Annotated[
        list[str], typer.Argument(help="Sound files, folders or globs; - for PCM on stdin.")
    ],
    format: Annotated[str, typer.Option(help="text, jsonl, srt or vtt.")] = "text",  # noqa: A002
    precision: Annotated[
        str | None, typer.Option(help="fp32, int8, static or int4; the bundle's own.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of onnxruntime.")] = 1,
    words: Annotated[
        bool, typer.Option("--words", help="Words with times and confidences, in jsonl.")
    ] = False,
    vad: Vad = False,
    sample_rate: Annotated[int | None, typer.Option(help="Of - in Hz, as in 16000.")] = None,
    encoding: Annotated[str, typer.Option(help="Of -, one channel: s16le or f32le.")] = "s16le",
    **decoding: Any,
) -> None:
    """Write what is said in sound files."""
    from compress.transcribe import transcribe_files
    from streaming import DecodingSettings, GateSettings

    transcribe_files(
        bundle,
        files,
        format,
        precision=precision,
        num_threads=threads,
        decoding=DecodingSettings(**decoding),
        gate=GateSettings() if vad else None,
        words=words,
        sample_rate=sample_rate,
        encoding=encoding,
    )


@app.command(
    epilog="Example: compress listen --list-devices, then "
    "compress listen runs/channel-0.9/bundle --device 3"
)
@takes_decoding
def listen(
    bundle: Annotated[Path | None, typer.Argument(help="The folder of a bundle.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Microphone by name or number, or a sound file.")
    ] = None,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="Name the microphones, nothing else.")
    ] = False,
    precision: Annotated[
        str | None, typer.Option(help="fp32, int8, static or int4; the bundle's own.")
    ] = None,
    vad: Vad = False,
    **decoding: Any,
) -> None:
    """Show text while you speak; Ctrl-C ends."""
    from compress.listen import listen as listen_to
    from streaming import DecodingSettings, GateSettings
    from streaming.microphone import list_microphones

    if list_devices:
        for line in list_microphones():
            typer.echo(line)
        return
    if bundle is None:
        raise InputError("no bundle given: compress listen BUNDLE, or --list-devices")
    gate = GateSettings() if vad else None
    settings = DecodingSettings(**decoding)
    listen_to(bundle, device, precision=precision, decoding=settings, gate=gate)


@app.command(
    epilog="Example: compress serve runs/channel-0.9/bundle --port 2700; then "
    "python examples/websocket_client.py ws://127.0.0.1:2700 talk.wav"
)
@takes_decoding
def serve(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle.")],
    host: Annotated[str, typer.Option(help="Address to listen on; this machine alone.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 2700,
    max_connections: Annotated[int, typer.Option(help="Clients at once.")] = 200,
    max_message_bytes: Annotated[int, typer.Option(help="Of one message of sound.")] = 1 << 20,
    max_seconds: Annotated[float, typer.Option(help="Of sound, a connection.")] = 4 * 3600.0,
    idle_timeout: Annotated[float, typer.Option(help="Seconds without a message.")] = 60.0,
    max_batch: Annotated[int, typer.Option(help="Streams of one call of the encoder.")] = 32,
    precision: Annotated[
        str | None, typer.Option(help="fp32, int8, static or int4; the bundle's own.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of onnxruntime.")] = 1,
    vad: Vad = False,
    **decoding: Any,
) -> None:
    """Answer websocket clients with text, in vosk-server's protocol; Ctrl-C ends."""
    from compress.serve import Limits, serve_bundle
    from streaming import DecodingSettings, GateSettings

    limits = Limits(
        connections=max_connections,
        message_bytes=max_message_bytes,
        audio_seconds=max_seconds,
        idle_seconds=idle_timeout,
        max_batch=max_batch,
    )
    serve_bundle(
        bundle,
        host,
        port,
        limits,
        precision=precision,
        num_threads=threads,
        decoding=DecodingSettings(**decoding),
        gate=GateSettings() if vad else None,
    )


@app.command(epilog="Example: compress doctor")
def doctor() -> None:
    """Check this machine: versions, microphone, voices, processor, disk."""
    from compress.doctor import examine

    findings = examine()
    for finding in findings:
        typer.echo(str(finding))
    raise typer.Exit(2 if any(finding.state == "broken" for finding in findings) else 0)


def main() -> None:
    """Entry point: turns errors into one line and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run_app(sys.argv[1:]))


def run_app(arguments: list[str]) -> int:
    """The exit code of one call; see the top of this file."""
    try:
        code = app(arguments, prog_name="compress", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except InputError as error:
        say_error(str(error))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OUR_PACKAGES:
            say_error(f"our own fault: please report it with {write_log()}")
            return 1
        say_error(
            f"this command needs {error.name}, which an installation for devices leaves out: "
            f"pip install '.[{EXTRAS.get(error.name or '', 'train,demo')}]' in the checkout"
        )
        return 2
    except Exception as error:
        if is_disk_full(error):
            say_error("no space left on the disk: free some, then the same command with --resume")
            return 2
        # Typer's usage errors: known by their method, for newer releases carry their own click.
        if hasattr(error, "format_message"):
            say_error(f"{error.format_message()} (compress --help shows how)")
            return 2
        say_error(f"our own fault: please report it with {write_log()}")
        return 1


def say_error(message: str) -> None:
    typer.echo(f"compress: {' '.join(message.split())}", err=True)


def write_log() -> Path:
    """The traceback in a file, so that the terminal shows one line."""
    with tempfile.NamedTemporaryFile("w", prefix="compress-", suffix=".log", delete=False) as file:
        file.write(f"{sys.argv}\n{traceback.format_exc()}")
    return Path(file.name)
