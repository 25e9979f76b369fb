"""`compress transcribe`: sound files to text, jsonl, srt or vtt, through a bundle alone."""

import glob
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from compress.progress import progress_bar
from compress.subtitles import write_srt, write_vtt
from streaming import (
    DecodingSettings,
    GateSettings,
    InputError,
    Recognizer,
    Result,
    Stream,
    open_bundle,
)
from streaming.audio import SUFFIXES, open_audio
from streaming.pcm import decode_pcm, read_pcm
from streaming.resample import Resampler

BAR_AFTER_SECONDS = 2.0
STDIN = "-"


def transcribe_files(
    bundle: Path | str,
    files: Sequence[Path | str],
    format: str = "text",  # noqa: A002 (the command line calls it --format)
    out: TextIO | None = None,
    precision: str | None = None,
    num_threads: int = 1,
    decoding: DecodingSettings | None = None,
    gate: GateSettings | None = None,
    words: bool = False,
    sample_rate: int | None = None,
    encoding: str = "s16le",
) -> None:
    """Writes the transcripts of files, folders and globs to `out` (standard output), in order.

    format: a key of FORMATS. words: adds them to jsonl. The file "-" is standard input, PCM of
    `sample_rate` in `encoding`. A bad file does not keep the others from being written; then
    InputError names the first bad one. Nothing is read before the bundle and the format are good.
    """
    paths = _check_request(files, format, words)
    _check_stdin(paths, sample_rate, encoding)
    recognizer = open_bundle(bundle, precision, num_threads, decoding, gate)
    write = _write_jsonl_words if words else FORMATS[format]
    errors = []
    with _progress(len(paths)) as advance:
        for path in paths:
            try:
                if sample_rate is not None and str(path) == STDIN:
                    result = transcribe_stdin(recognizer, sample_rate, encoding)
                else:
                    result = transcribe_file(recognizer, path, advance)
            except InputError as error:
                errors.append(error)
                continue
            write(out or sys.stdout, path, result, len(paths))
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise InputError(f"{len(errors)} of {len(paths)} files were not read; first: {errors[0]}")


def _check_request(files: Sequence[Path | str], format: str, words: bool) -> list[Path]:  # noqa: A002
    """The sound files, when they and the format go together."""
    if format not in FORMATS:
        raise InputError(f"format {format!r} is not known: use one of {', '.join(FORMATS)}")
    paths = find_audio(files)
    if format in ONE_FILE_FORMATS and len(paths) > 1:
        raise InputError(f"{format} holds one file, got {len(paths)}: give one, or use jsonl")
    if words and format != "jsonl":
        raise InputError(f"{format} has no place for words: use --format jsonl with --words")
    return paths


def transcribe_file(
    recognizer: Recognizer, path: Path | str, advance: Callable[[float], None] = lambda share: None
) -> Result:
    """Decodes one file, a second at a time; Result.seconds is the length of the file.

    advance is called with the share of the file done since the last call.
    """
    stream = recognizer.create_stream()
    with open_audio(path) as file:
        for block in file.blocks():
            stream.accept_waveform(file.sample_rate, block)
            recognizer.decode_ready(stream)
            advance(len(block) / file.num_samples)
        return _finish(recognizer, stream, file.seconds)


def transcribe_stdin(recognizer: Recognizer, sample_rate: int, encoding: str) -> Result:
    """Decodes PCM from standard input until it ends."""
    stream = recognizer.create_stream()
    num_samples = 0
    for block in read_pcm(sys.stdin.buffer, sample_rate, encoding):
        stream.accept(block, sample_rate)
        num_samples += len(block)
    if num_samples == 0:
        raise InputError("standard input holds no sound: pipe raw PCM into it")
    return _finish(recognizer, stream, num_samples / sample_rate)


def _finish(recognizer: Recognizer, stream: Stream, seconds: float) -> Result:
    stream.finish()
    result = recognizer.get_result_all(stream)
    return replace(result, seconds=round(seconds, 3))


def _check_stdin(paths: Sequence[Path], sample_rate: int | None, encoding: str) -> None:
    """Whether what is said of standard input fits together, before anything is loaded."""
    count = [str(path) for path in paths].count(STDIN)
    if count > 1:
        raise InputError("standard input is given twice: give - once")
    if count and sample_rate is None:
        raise InputError("raw PCM has no header: give its rate, as in --sample-rate 16000")
    if sample_rate is not None and not count:
        raise InputError("--sample-rate is of standard input: give - as the file, or leave it out")
    if count:
        decode_pcm(b"", encoding)
        Resampler(sample_rate or 0, 16000)
        if sys.stdin.isatty():
            raise InputError("standard input is the keyboard: pipe raw PCM into it")


def find_audio(files: Sequence[Path | str]) -> list[Path]:
    """Expands folders (all sound files below, sorted) and globs; raises InputError for nothing."""
    if not files:
        raise InputError("no sound files given: name files, folders or globs")
    return [path for name in files for path in _expand(str(name))]


def _expand(name: str) -> list[Path]:
    path = Path(name)
    if name == STDIN:
        return [path]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not found:
            raise InputError(f"{path}: no sound files in this folder: check the path")
        return found
    if not path.exists() and glob.has_magic(name):
        found = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207
        if not found:
            raise InputError(f"{name}: matches no file: check the pattern")
        return found
    return [path]


@contextmanager
def _progress(num_files: int) -> Iterator[Callable[[float], None]]:
    """A bar on standard error, once the work has taken BAR_AFTER_SECONDS."""
    bar = progress_bar()
    task = bar.add_task("transcribing", total=num_files, note="")
    start = time.monotonic()

    def advance(share: float) -> None:
        bar.advance(task, share)
        if not bar.live.is_started and time.monotonic() - start > BAR_AFTER_SECONDS:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


def _write_text(out: TextIO, path: Path, result: Result, num_files: int) -> None:
    """The text alone for a single file, `FILE: text` for several."""
    out.write(f"{path}: {result.text}\n" if num_files > 1 else f"{result.text}\n")
    out.flush()


def _write_jsonl(out: TextIO, path: Path, result: Result, num_files: int) -> None:
    _write_json(out, _describe(path, result))


def _write_jsonl_words(out: TextIO, path: Path, result: Result, num_files: int) -> None:
    _write_json(out, _describe(path, result) | {"words": [asdict(word) for word in result.words]})


def _describe(path: Path, result: Result) -> dict[str, Any]:
    return {
        "file": str(path),
        "text": result.text,
        "tokens": result.tokens,
        "timestamps": result.timestamps,
        "seconds": result.seconds,
    }


def _write_json(out: TextIO, line: dict[str, Any]) -> None:
    out.write(json.dumps(line, ensure_ascii=False) + "\n")
    out.flush()


def _write_srt(out: TextIO, path: Path, result: Result, num_files: int) -> None:
    write_srt(out, result)


def _write_vtt(out: TextIO, path: Path, result: Result, num_files: int) -> None:
    write_vtt(out, result)


FORMATS: dict[str, Callable[[TextIO, Path, Result, int], None]] = {
    "text": _write_text,
    "jsonl": _write_jsonl,
    "srt": _write_srt,
    "vtt": _write_vtt,
}
ONE_FILE_FORMATS = {"srt", "vtt"}
