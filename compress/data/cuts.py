"""Any of the supported data formats as Lhotse cuts, strictly checked; and samples out of a cut.

A cut has one supervision (text, speaker) and two custom fields: `data`, the name of the data set,
and `split`. Lhotse takes more than a second to import, so it is imported where it is used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import soundfile

from compress.data.importers import IMPORTERS, Row, detect_format, parse_object, read_lines
from streaming.audio import check_samples, open_audio, resample
from streaming.errors import AudioError, InputError
from streaming.features import FloatArray

if TYPE_CHECKING:
    from lhotse import CutSet
    from lhotse.cut import Cut, MonoCut

SAMPLE_RATE = 16_000
SHORTER_THAN_SAID_SECONDS = 0.1  # manifests round, and lossy codecs pad; more is a truncated file


def read_data(spec: str | Path, split: str | None = None, labelled: bool = True) -> CutSet:
    """Read a folder or manifest (see importers.py for the formats) into cuts.

    split: keep only this one; data that names no splits has none to choose from (assign_splits
    makes them). labelled: False takes utterances without text, such as the noise pack.
    Raises InputError, with file and line, for anything that could silently spoil a training.
    """
    from lhotse import CutSet

    reader, path = detect_format(Path(spec))
    name = data_name(path)
    if reader == "lhotse":
        cuts = list(read_lhotse(path, name, labelled))
    else:
        rows = list(IMPORTERS[reader](path))
        with ThreadPoolExecutor(max_workers=8) as pool:  # opening files is mostly waiting
            cuts = list(pool.map(lambda row: build_cut(row, name, labelled), rows))
    if not cuts:
        raise InputError(f"{path} holds no utterances: see README.md for what --data takes")
    refuse_duplicates(path, cuts)
    return CutSet(cuts) if split is None else select_split(CutSet(cuts), split)


def data_name(path: Path) -> str:
    """What reports call a data set: its folder, or its file when that has a name of its own."""
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    return (
        path.resolve().parent.name if stem in ("manifest", "cuts") else stem or path.resolve().name
    )


def refuse_duplicates(path: Path, cuts: list[Cut]) -> None:
    cut_id, count = Counter(cut.id for cut in cuts).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: {count} utterances are called {cut_id}: make each id unique")


def build_cut(row: Row, name: str, labelled: bool) -> MonoCut:
    """Open the audio a row names, check it, and make the cut."""
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

    text = checked_text(row.origin, row.text, labelled)
    num_samples, sample_rate = measure_audio(row.origin, row.audio_path)
    seconds = num_samples / sample_rate
    end = seconds if row.duration_seconds is None else row.start_seconds + row.duration_seconds
    if end > seconds + SHORTER_THAN_SAID_SECONDS:
        raise InputError(
            f"{row.origin}: {row.audio_path} ends at {seconds:.2f} s, not {end:.2f} s: "
            "copy it again if it is truncated, or correct the line"
        )
    duration = min(end, seconds) - row.start_seconds
    if duration <= 0:
        raise InputError(f"{row.origin}: no audio between start and end: correct the times")
    recording = Recording(
        id=row.id,
        sources=[AudioSource(type="file", channels=[0], source=str(row.audio_path))],
        sampling_rate=sample_rate,
        num_samples=num_samples,
        duration=seconds,
    )
    supervision = SupervisionSegment(
        id=row.id,
        recording_id=row.id,
        start=0.0,
        duration=duration,
        text=text,
        speaker=row.speaker,
    )
    return MonoCut(
        id=row.id,
        start=row.start_seconds,
        duration=duration,
        channel=0,
        supervisions=[supervision],
        recording=recording,
        custom={"data": name, "split": row.split},
    )


def checked_text(origin: str, text: object, labelled: bool) -> str:
    if text is None and not labelled:
        return ""
    if not isinstance(text, str):
        raise InputError(f"{origin}: no text: write the transcript there, or leave the line out")
    text = normalise_text(text)
    if labelled and not text:
        raise InputError(f"{origin}: empty text: write the transcript there, or leave the line out")
    return text


def normalise_text(text: str) -> str:
    """Lower case, one space between words, no punctuation but the apostrophe inside a word.

    "Don't  stop -- 'Now'!" gives "don't stop now". Digits and letters of any script stay.
    """
    text = re.sub(r"[’ʼ`]", "'", text.lower())
    text = re.sub(r"[^\w']|_", " ", text)
    words = (word.strip("'") for word in text.split())
    return " ".join(word for word in words if word)


def measure_audio(origin: str, path: Path) -> tuple[int, int]:
    """(num_samples, sample_rate) from the header. Raises AudioError for a file without sound."""
    try:
        with open_audio(path) as file:
            return file.num_samples, file.sample_rate
    except AudioError as error:
        raise AudioError(f"{origin}: {error}") from None


def read_lhotse(path: Path, name: str, labelled: bool) -> Iterator[Cut]:
    """A Lhotse cuts file, paths relative to its folder, each line checked like any other."""
    from lhotse.serialization import deserialize_item

    for origin, line in read_lines(path):
        fields = parse_object(origin, line)
        try:
            cut = deserialize_item(fields)
            recording = cut.recording
        except Exception as error:  # whatever a foreign line makes Lhotse raise
            raise InputError(f"{origin}: not a cut with a recording ({error})") from None
        if labelled and len(cut.supervisions) != 1:
            raise InputError(
                f"{origin}: {len(cut.supervisions)} supervisions, want one: "
                "use CutSet.trim_to_supervisions first"
            )
        for supervision in cut.supervisions:
            supervision.text = checked_text(origin, supervision.text, labelled)
        for source in recording.sources:
            if source.type == "file":
                source.source = str(path.parent / source.source)
                measure_audio(origin, Path(source.source))
        cut.custom = {"data": name, "split": None, **(cut.custom or {})}
        yield cut


def split_name(cut: Cut) -> str | None:
    """Where the cut belongs; Lhotse's own cut.split is a method that cuts it in pieces."""
    return (cut.custom or {}).get("split")


def splits_in(cuts: Iterable[Cut]) -> list[str]:
    """The names of the splits present, sorted; empty when the data names none."""
    return sorted({split for cut in cuts if (split := split_name(cut))})


def select_split(cuts: CutSet, split: str) -> CutSet:
    """The cuts of one split. Raises InputError, naming the splits present, when it is not there."""
    from lhotse import CutSet

    present = splits_in(cuts)
    if split not in present:
        choice = f"use one of {', '.join(present)}" if present else "the data names no splits"
        raise InputError(f"no split {split!r}: {choice}")
    return CutSet([cut for cut in cuts if split_name(cut) == split])


def assign_splits(cuts: CutSet) -> CutSet:
    """Give 80/10/10 % train/dev/test to data that names no splits; other data stays as it is.

    By a hash of the speaker, so that no speaker is in two splits and a grown data set keeps most
    of its old assignments. With fewer than three speakers it goes by utterance: a single voice
    can be learnt and judged, on other sentences. Raises InputError below three utterances.
    """
    if splits_in(cuts):
        return cuts
    keys = {cut.id: cut.supervisions[0].speaker or cut.id for cut in cuts}
    if len(set(keys.values())) < 3:
        keys = {cut.id: cut.id for cut in cuts}
    ordered = sorted(set(keys.values()), key=lambda key: (crc32(key.encode()), key))
    if len(ordered) < 3:
        raise InputError(f"too few utterances for train, dev and test: {len(keys)}, want three")
    share = max(1, round(len(ordered) / 10))
    named = dict.fromkeys(ordered[:share], "dev") | dict.fromkeys(ordered[-share:], "test")
    for cut in cuts:
        cut.custom["split"] = named.get(keys[cut.id], "train")
    return cuts


def read_samples(cut: Cut) -> FloatArray:
    """The audio of a cut, mono float32 at 16 kHz in [-1, 1], whatever its file holds.

    Raises AudioError for a file that ends early or holds values that are not finite.
    """
    sources = cut.recording.sources if type(cut).__name__ == "MonoCut" else []
    if len(sources) == 1 and sources[0].type == "file" and not cut.recording.transforms:
        samples, sample_rate = read_span(Path(sources[0].source), cut.start, cut.duration)
    else:
        samples, sample_rate = cut.load_audio().T, cut.sampling_rate
    mono = check_samples(samples, cut.id)
    return mono if sample_rate == SAMPLE_RATE else resample(mono, sample_rate, SAMPLE_RATE)


def read_span(path: Path, start: float, duration: float) -> tuple[FloatArray, int]:
    """(samples (num_samples, channels), sample_rate) of part of a file; times in seconds."""
    try:
        with soundfile.SoundFile(path) as file:
            first = round(start * file.samplerate)
            wanted = min(round(duration * file.samplerate), file.frames - first)
            file.seek(first)
            samples = file.read(wanted, dtype="float32", always_2d=True)
            missing = duration - len(samples) / file.samplerate
            if missing > SHORTER_THAN_SAID_SECONDS:
                raise AudioError(f"{path} is truncated, {missing:.2f} s short: copy it again")
            return samples, int(file.samplerate)
    except RuntimeError as error:  # soundfile's LibsndfileError
        raise AudioError(f"{path} cannot be read ({error}): copy it again") from None
