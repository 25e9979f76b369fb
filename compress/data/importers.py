"""Read the ways people keep transcribed speech, each into the same plain rows.

A row is what a file says, not yet what the audio holds: cuts.py opens the audio, checks it and
makes Lhotse cuts. Every error is an InputError that names the file, the line and the fix.

To add a format: a test of its folder, a reader, a line in IMPORTERS.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streaming.errors import InputError

SPLITS = ("train", "dev", "test", "noise", "rir")
SPLIT_ALIASES = {"training": "train", "valid": "dev", "validation": "dev", "eval": "test"}
AUDIO_SUFFIXES = (".wav", ".flac", ".opus", ".ogg", ".mp3", ".aiff", ".sph")


@dataclass(frozen=True)
class Row:
    """One utterance as its manifest names it. Times in seconds; None = the manifest is silent."""

    origin: str  # "FILE, line N" or the file itself: opens every error message
    id: str
    audio_path: Path
    text: str | None
    speaker: str | None = None
    split: str | None = None
    start_seconds: float = 0.0
    duration_seconds: float | None = None


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (origin, line) for each line of a text file, plain or .gz, that is not blank."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}, line {number}", str(line).strip()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: convert it with `iconv -t utf-8`") from None
    except (EOFError, gzip.BadGzipFile):
        raise InputError(f"{path} is a damaged .gz file: copy or download it again") from None


def parse_object(origin: str, line: str) -> dict[str, Any]:
    """One JSON object of a .jsonl file."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{origin}: not JSON ({error.msg}): one object a line") from None
    if not isinstance(fields, dict):
        raise InputError(f"{origin}: not a JSON object: write {{...}} on each line")
    return fields


def known_split(origin: str, name: str | None) -> str | None:
    """The split's common name: valid and validation are dev, eval is test."""
    if name is None:
        return None
    split = SPLIT_ALIASES.get(name, name)
    if split not in SPLITS:
        raise InputError(f"{origin}: unknown split {name!r}: use one of {', '.join(SPLITS)}")
    return split


def split_of_folder(name: str) -> str | None:
    """`train-clean-100`, `dev` and `test_other` say what they are; other names say nothing."""
    first = name.replace("_", "-").split("-")[0]
    split = SPLIT_ALIASES.get(first, first)
    return split if split in SPLITS else None


def read_nemo_manifest(path: Path) -> Iterator[Row]:
    """NeMo's keys: audio_filepath, text, duration, offset; and ours: id, speaker, split."""
    for origin, line in read_lines(path):
        fields = parse_object(origin, line)
        if not isinstance(fields.get("audio_filepath"), str):
            raise InputError(f"{origin}: no audio_filepath: name the audio file there")
        audio_path = Path(fields["audio_filepath"])
        start = read_seconds(origin, fields, "offset")
        name = audio_path.with_suffix("").as_posix() + (f"@{start:g}" if start else "")
        yield Row(
            origin=origin,
            id=str(fields.get("id") or name),
            audio_path=path.parent / audio_path,
            text=fields.get("text"),
            speaker=str(fields["speaker"]) if fields.get("speaker") else None,
            split=known_split(origin, fields.get("split")),
            start_seconds=start or 0.0,
            duration_seconds=read_seconds(origin, fields, "duration"),
        )


def read_seconds(origin: str, fields: dict[str, Any], key: str) -> float | None:
    value = fields.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e6:
        raise InputError(f"{origin}: {key} is {value!r}: give seconds, zero or more")
    return float(value)


def read_librispeech(path: Path) -> Iterator[Row]:
    """SUBSET/SPEAKER/CHAPTER/*.trans.txt beside the .flac files, as openslr.org/12 unpacks."""
    for transcript in sorted(path.rglob("*.trans.txt")):
        subset = transcript.parent.parent.parent.name
        for origin, line in read_lines(transcript):
            utterance, _, text = line.partition(" ")
            yield Row(
                origin=origin,
                id=utterance,
                audio_path=find_audio(origin, transcript.parent / utterance),
                text=text,
                speaker=utterance.split("-")[0],
                split=split_of_folder(subset),
            )


def find_audio(origin: str, stem: Path) -> Path:
    """The audio file of this name, whatever its suffix."""
    for suffix in (".flac", *AUDIO_SUFFIXES):
        candidate = stem.with_name(stem.name + suffix)
        if candidate.is_file():
            return candidate
    raise InputError(f"{origin}: no audio {stem.name}.flac (or .wav, .opus) in {stem.parent}")


def read_kaldi(path: Path, split: str | None = None) -> Iterator[Row]:
    """wav.scp and text, with utt2spk and segments if there; or train/, dev/, test/ of those."""
    if not (path / "wav.scp").exists():
        for folder in sorted(scp.parent for scp in path.glob("*/wav.scp")):
            yield from read_kaldi(folder, split_of_folder(folder.name))
        return
    recordings = read_table(path / "wav.scp")
    texts = read_table(path / "text") if (path / "text").exists() else {}
    speakers = read_table(path / "utt2spk") if (path / "utt2spk").exists() else {}
    segments = read_table(path / "segments") if (path / "segments").exists() else None
    utterances = recordings if segments is None else segments
    for utterance, (origin, value) in utterances.items():
        recording, start, duration = utterance, 0.0, None
        if segments is not None:
            recording, start, duration = parse_segment(origin, value)
        if recording not in recordings:
            raise InputError(f"{origin}: recording {recording} is not in {path / 'wav.scp'}")
        origin, audio = recordings[recording]
        if audio.endswith("|"):
            raise InputError(f"{origin}: a command; commands are not run: name an audio file")
        yield Row(
            origin=origin,
            id=utterance,
            audio_path=path / audio,
            text=texts.get(utterance, (origin, None))[1],
            speaker=speakers.get(utterance, (origin, None))[1],
            split=split,
            start_seconds=start,
            duration_seconds=duration,
        )
    for utterance in texts.keys() - utterances.keys():
        listing = "wav.scp" if segments is None else "segments"
        raise InputError(f"{texts[utterance][0]}: {utterance} has no audio: add it to {listing}")


def read_table(path: Path) -> dict[str, tuple[str, str]]:
    """A Kaldi table, `key value...` a line, as {key: (origin, value)}."""
    table: dict[str, tuple[str, str]] = {}
    for origin, line in read_lines(path):
        key, _, value = line.partition(" ")
        if key in table:
            raise InputError(f"{origin}: {key} is there twice: keep one of the lines")
        table[key] = (origin, value.strip())
    return table


def parse_segment(origin: str, value: str) -> tuple[str, float, float]:
    try:
        recording, start, end = value.split()
        times = float(start), float(end)
    except ValueError:
        raise InputError(f"{origin}: write `utterance recording start end`, in seconds") from None
    if not 0 <= times[0] < times[1]:
        raise InputError(f"{origin}: the segment ends at {end}, before it starts at {start}")
    return recording, times[0], times[1] - times[0]


def read_folder(path: Path) -> Iterator[Row]:
    """Audio files with a .txt of the same name beside each, in any depth of folders.

    A folder on the way named train, dev or test is the split; the folder a file lies in, if it
    is neither that nor the top, is its speaker.
    """
    for audio_path in sorted(path.rglob("*")):
        if audio_path.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        folders = audio_path.relative_to(path).parts[:-1]
        splits = [SPLIT_ALIASES.get(name, name) for name in folders]
        splits = [name for name in splits if name in SPLITS]
        others = [name for name in folders if name not in (*SPLITS, *SPLIT_ALIASES)]
        transcript = audio_path.with_suffix(".txt")
        yield Row(
            origin=str(transcript if transcript.exists() else audio_path),
            id=audio_path.relative_to(path).with_suffix("").as_posix(),
            audio_path=audio_path,
            text=read_transcript(transcript),
            speaker="/".join(others) or None,
            split=splits[0] if splits else None,
        )


def read_transcript(path: Path) -> str | None:
    return " ".join(line for _, line in read_lines(path)) if path.exists() else None


IMPORTERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "nemo": read_nemo_manifest,
    "librispeech": read_librispeech,
    "kaldi": read_kaldi,
    "folder": read_folder,
}


def detect_format(path: Path) -> tuple[str, Path]:
    """Which reader fits, and the file or folder it wants: a key of IMPORTERS, or "lhotse"."""
    if not path.exists():
        raise InputError(f"{path} does not exist: check the spelling of --data")
    if path.is_dir():
        for name in ("manifest.jsonl", "cuts.jsonl.gz", "cuts.jsonl"):
            if (path / name).exists():
                return detect_format(path / name)
        if (path / "wav.scp").exists() or any(path.glob("*/wav.scp")):
            return "kaldi", path
        if next(path.rglob("*.trans.txt"), None):
            return "librispeech", path
        return "folder", path
    if not path.name.endswith((".jsonl", ".jsonl.gz", ".json")):
        raise InputError(
            f"{path.name} is not data: give a .jsonl manifest, a Lhotse cuts file or a folder"
        )
    first = next(read_lines(path), None)
    if first is None:
        raise InputError(f"{path} is empty: one JSON object a line")
    fields = parse_object(*first)
    if fields.get("type") in ("MonoCut", "MixedCut", "PaddingCut", "MultiCut"):
        return "lhotse", path
    return "nemo", path
