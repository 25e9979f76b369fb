"""Features of a data set, computed once: memory-mapped arrays and an index of utterances.

    folder/features.f16   all frames one after another, (frames, F) float16 log-mel
           phones.u8      the phone of each frame where the data knows it, else NO_PHONE
           index.json     one row an utterance: id, text, speaker, data set, first frame, frames

float16 holds log-mel to 0.008 and halves what the page cache must keep. Only training and the
greedy search in torch read a store; a bundle is always judged from audio.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union
from zlib import crc32

import numpy as np

from compress.data.cuts import read_samples
from compress.data.espeak import normalise_phone, phone_inventory
from compress.data.join import JoinedUtterance, read_joined
from compress.data.noise import Augmenter
from compress.interrupts import ignore_interrupts
from compress.progress import track
from streaming.features import FeatureSettings, compute_features

if TYPE_CHECKING:
    from lhotse.cut import Cut

Utterance = Union["Cut", JoinedUtterance]
NO_PHONE = 255
UTTERANCES_PER_TASK = 64
FRAME_SECONDS = 0.01


@dataclass(frozen=True)
class Row:
    """One utterance of a store; `start` and `num_frames` count feature frames of 10 ms."""

    id: str
    text: str
    speaker: str
    data: str
    start: int
    num_frames: int


class FeatureStore:
    """Read access; `features(row)` is (T, F) float32, `phones(row)` (T,) uint8."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = json.loads((folder / "index.json").read_text())
        self.rows = [Row(**row) for row in index["rows"]]
        self.num_mel_bins = index["num_mel_bins"]
        shape = (-1, self.num_mel_bins)
        self._features = np.memmap(folder / "features.f16", np.float16, "r").reshape(shape)
        self._phones = np.memmap(folder / "phones.u8", np.uint8, "r")

    @property
    def seconds(self) -> float:
        return len(self._features) * FRAME_SECONDS

    def features(self, row: Row) -> np.ndarray:
        return self._features[row.start : row.start + row.num_frames].astype(np.float32)

    def phones(self, row: Row) -> np.ndarray:
        return np.asarray(self._phones[row.start : row.start + row.num_frames])

    def statistics(self, max_frames: int = 500_000) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation per mel bin, each (F,), over evenly spaced frames."""
        step = max(1, len(self._features) // max_frames)
        sample = self._features[::step].astype(np.float32)
        return sample.mean(0), sample.std(0)


def build_store(
    cache: Path,
    name: str,
    utterances: Sequence[Utterance],
    augmenter: Augmenter | None = None,
    copies: int = 1,
    seed: int = 0,
    settings: FeatureSettings = FeatureSettings(),  # noqa: B008  frozen, no state shared
    num_workers: int = 2,
) -> FeatureStore:
    """Compute, or find in `cache`, the features of `utterances`.

    With an augmenter every utterance is heard `copies` times, each differently; the folder's name
    is a hash of all that determines its content, and appears when it is whole.
    """
    what = {
        "utterances": [describe(utterance) for utterance in utterances],
        "augmenter": augmenter.fingerprint if augmenter else None,
        "copies": copies,
        "seed": seed,
        "settings": settings.to_json(),
        "version": 1,
    }
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache / f"{name}-{digest}"
    if not folder.exists():
        tasks = [
            (utterance, copy) for utterance in utterances for copy in range(copies)
        ]  # copies lie side by side, so a truncated reading keeps whole utterances
        extract = partial(extract_task, augmenter=augmenter, seed=seed, settings=settings)
        write_store(folder, name, extract, tasks, settings, num_workers)
    return FeatureStore(folder)


def describe(utterance: Utterance) -> list[Any]:
    """What identifies an utterance's content for the cache's hash: a changed file is read again."""
    if isinstance(utterance, JoinedUtterance):
        parts = [describe(piece) for piece in utterance.pieces]
        return [utterance.id, *utterance.gaps_seconds, *parts]
    what = [utterance.id, utterance.duration, utterance.supervisions[0].text or ""]
    if not utterance.custom:  # synthetic speech: its files are never written twice
        return what
    paths = [Path(source.source) for source in utterance.recording.sources]
    states = [path.stat() for path in paths if path.is_file()]
    return [*what, utterance.start, *((state.st_size, state.st_mtime_ns) for state in states)]


def write_store(
    folder: Path,
    name: str,
    extract: partial,
    tasks: list[tuple[Utterance, int]],
    settings: FeatureSettings,
    num_workers: int,
) -> None:
    growing = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    growing.mkdir(parents=True)
    try:
        rows, start = [], 0
        batches = [
            tasks[first : first + UTTERANCES_PER_TASK]
            for first in range(0, len(tasks), UTTERANCES_PER_TASK)
        ]
        with (
            (growing / "features.f16").open("wb") as features_file,
            (growing / "phones.u8").open("wb") as phones_file,
        ):
            for batch in track(
                run_tasks(extract, batches, num_workers), f"features of {name}", len(batches)
            ):
                for row, features, phones in batch:
                    features_file.write(features.tobytes())
                    phones_file.write(phones.tobytes())
                    rows.append(asdict(Row(start=start, num_frames=len(features), **row)))
                    start += len(features)
        index = {"num_mel_bins": settings.num_mel_bins, "rows": rows}
        (growing / "index.json").write_text(json.dumps(index))
        try:
            growing.rename(folder)
        except OSError:
            if not folder.exists():  # else another process finished the same store first
                raise
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def run_tasks(extract: partial, batches: list, num_workers: int) -> Iterator[list]:
    if num_workers <= 1 or len(batches) <= 2:  # starting a process costs two seconds
        yield from map(extract, batches)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, spawn, ignore_interrupts) as pool:
        yield from pool.map(extract, batches)


def extract_task(
    batch: list[tuple[Utterance, int]],
    augmenter: Augmenter | None,
    seed: int,
    settings: FeatureSettings,
) -> list[tuple[dict[str, str], np.ndarray, np.ndarray]]:
    """Rows, float16 features and phones of a few utterances; runs in a worker process."""
    extracted = []
    for utterance, copy in batch:
        samples = read_utterance(utterance)
        stretch = 1.0
        if augmenter:
            rng = np.random.default_rng([seed, copy, crc32(utterance.id.encode())])
            before = len(samples)
            samples = augmenter(samples, rng)
            stretch = len(samples) / before
        features = compute_features(samples, settings)
        row = {
            "id": utterance.id if not copy else f"{utterance.id}#{copy}",
            "text": text_of(utterance),
            "speaker": speaker_of(utterance),
            "data": data_of(utterance),
        }
        phones = frame_phones(utterance, len(features), stretch)
        extracted.append((row, features.astype(np.float16), phones))
    return extracted


def read_utterance(utterance: Utterance) -> np.ndarray:
    if isinstance(utterance, JoinedUtterance):
        return read_joined(utterance)
    return read_samples(utterance)


def text_of(utterance: Utterance) -> str:
    if isinstance(utterance, JoinedUtterance):
        return utterance.text
    return utterance.supervisions[0].text or ""


def speaker_of(utterance: Utterance) -> str:
    if isinstance(utterance, JoinedUtterance):
        return utterance.speaker
    return utterance.supervisions[0].speaker or ""


def data_of(utterance: Utterance) -> str:
    if isinstance(utterance, JoinedUtterance):
        utterance = utterance.pieces[0]
    return (utterance.custom or {}).get("data", "synthetic")


def frame_phones(utterance: Utterance, num_frames: int, stretch: float) -> np.ndarray:
    """(T,) index into phone_inventory() of each frame, NO_PHONE where nobody knows."""
    phones = np.full(num_frames, NO_PHONE, np.uint8)
    if isinstance(utterance, JoinedUtterance):
        return phones
    alignment = (utterance.supervisions[0].alignment or {}).get("phone")
    if not alignment:
        return phones
    inventory = {phone: index for index, phone in enumerate(phone_inventory())}
    phones[:] = inventory["sil"]
    for item in alignment:
        begin = round(item.start * stretch / FRAME_SECONDS)
        end = round((item.start + item.duration) * stretch / FRAME_SECONDS)
        phones[begin:end] = inventory[normalise_phone(item.symbol)]
    return phones
