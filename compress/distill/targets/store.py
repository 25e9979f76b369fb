"""Stored targets on disk: the teacher runs once over a training set, not in every step.

    folder/KIND.bin     the arrays of one utterance after another
           KIND.jsonl   first line: teacher, tokenizer, settings, bfloat16; then a line each

A student hears every utterance a dozen times in a run, and the teacher's pass was 60 of 160 ms a
step (40 s of audio, teacher of 5.5 M, student of 0.55 M): stored targets buy 1.6 times the steps.
Teacher and student must see the same features, so batches with stored targets are not masked.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from compress.data.batches import Batch, BatchSampler, Source, bucket
from compress.data.store import Row
from compress.data.tokenizer import Tokenizer
from compress.distill.targets.kind import Item, Kind
from compress.distill.view import TeacherView, view_batch
from compress.models.transducer import Transducer
from compress.precision import Choice, choose
from compress.progress import say, track
from streaming.errors import InputError

Array = tuple[str, str, list[int]]  # name, dtype, shape


class Place(NamedTuple):
    """Where an utterance's arrays begin in KIND.bin, and what they are."""

    start: int
    arrays: list[Array]


class KindStore:
    """The targets of one kind: appended while the teacher runs, memory-mapped afterwards.

    Raises InputError when the files are of another teacher, tokenizer or setting.
    """

    def __init__(self, folder: Path, kind: Kind, origin: dict[str, Any]) -> None:
        self.kind = kind
        self.path = folder / f"{kind.name}.bin"
        self.index = folder / f"{kind.name}.jsonl"
        self.places: dict[str, Place] = {}
        self.end = 0
        header = origin | {"kind": kind.name, "settings": asdict(kind)}  # type: ignore[call-overload]
        if self.index.exists() and self.index.stat().st_size:
            self._read_index(header)
        else:
            self.index.write_text(json.dumps(header) + "\n")
            self.path.write_bytes(b"")

    def _read_index(self, header: dict[str, Any]) -> None:
        """Find what was stored, and forget a last utterance that a kill cut short."""
        lines = self.index.read_text().splitlines(keepends=True)
        found = read_header(self.index, lines[0])
        for name, wanted in json.loads(json.dumps(header)).items():
            if found.get(name) != wanted:
                raise InputError(
                    f"{self.index} holds targets of another {name} ({found.get(name)}, wanted "
                    f"{wanted}): delete {self.index.parent} to store them again"
                )
        num_bytes = self.path.stat().st_size
        kept = lines[:1]
        for line in lines[1:]:
            if not line.endswith("\n"):
                break
            key, start, arrays = json.loads(line)
            end = start + sum(size_of(array) for array in arrays)
            if end > num_bytes:
                break
            self.places[key] = Place(start, arrays)
            self.end = end
            kept.append(line)
        if len(kept) < len(lines):
            self.index.write_text("".join(kept))
        with self.path.open("r+b") as file:
            file.truncate(self.end)

    def append(self, items: Iterable[tuple[str, Item]]) -> None:
        """Arrays first, index after: an index line always points at bytes that are there."""
        lines = []
        with self.path.open("ab") as file:
            for key, item in items:
                arrays = [(name, part.dtype.str, list(part.shape)) for name, part in item.items()]
                for part in item.values():
                    file.write(np.ascontiguousarray(part).tobytes())
                self.places[key] = Place(self.end, arrays)
                lines.append(json.dumps([key, self.end, arrays]) + "\n")
                self.end += sum(size_of(array) for array in arrays)
        with self.index.open("a") as file:
            file.writelines(lines)

    def map(self) -> None:
        """Open what was stored for reading; an empty file cannot be mapped."""
        self.bytes = np.memmap(self.path, np.uint8, "r") if self.end else np.empty(0, np.uint8)

    def item(self, key: str) -> Item:
        start, arrays = self.places[key]
        item = {}
        for array in arrays:
            name, dtype, shape = array
            end = start + size_of(array)
            item[name] = self.bytes[start:end].view(dtype).reshape(shape)
            start = end
        return item


def size_of(array: Array) -> int:
    _, dtype, shape = array
    return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))


def read_header(path: Path, line: str) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except json.JSONDecodeError:
        header = None
    if not isinstance(header, dict):
        raise InputError(f"{path} is no index of stored targets: delete {path.parent}")
    return {"bfloat16": True} | header  # all were, before it was written down


def choose_precision(folder: Path) -> Choice:
    """What is faster here, or what the folder's targets were begun in: one teacher in one folder,
    whatever machines it ran on."""
    for index in sorted(folder.glob("*.jsonl")):
        with index.open() as lines:
            if first := lines.readline():
                return choose("auto", "cpu", bool(read_header(index, first)["bfloat16"]))
    return choose("auto", "cpu")


class TargetStore:
    """The kinds that some methods need, of one teacher."""

    def __init__(self, teacher: Transducer, kinds: dict[str, KindStore]) -> None:
        self.teacher = teacher
        self.kinds = kinds
        for store in kinds.values():
            store.map()

    def view(self, batch: Batch, keys: list[str], num_frames: int) -> TeacherView:
        """The teacher's view of a batch, padded to `num_frames` frames of the teacher's."""
        stored = {}
        for name, store in self.kinds.items():
            items = [store.item(key) for key in keys]
            stored[name] = store.kind.collate(items, batch, num_frames)
        subsampling = self.teacher.encoder.subsampling
        lengths = (batch.feature_lengths + subsampling - 1) // subsampling
        return TeacherView(self.teacher, batch, lengths, stored)


def key_of(row: Row) -> str:
    """Ids are unique in a data set, not across them; features of one id differ by their length."""
    return f"{row.data}/{row.id}/{row.num_frames}"


def fingerprint(teacher: Transducer, tokenizer: Tokenizer) -> dict[str, str]:
    """Hashes of the teacher's weights and of its tokenizer."""
    weights = hashlib.sha256()
    for name, tensor in teacher.state_dict().items():
        weights.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    pieces = hashlib.sha256(tokenizer.model)
    return {"teacher": weights.hexdigest()[:16], "tokenizer": pieces.hexdigest()[:16]}


def store_targets(
    folder: Path, kinds: Iterable[Kind], teacher: Transducer, sampler: BatchSampler
) -> TargetStore:
    """Run the teacher over all utterances of the sampler's sources that are not stored yet.

    Killed, it goes on where it stopped; a second process waits for the first. Raises InputError
    for targets of another teacher, and when the teacher says NaN of an utterance.
    """
    origin: dict[str, Any] = fingerprint(teacher, sampler.tokenizer)
    origin["tail_frames"] = str(sampler.settings.tail_frames)
    with alone_in(folder):
        precision = choose_precision(folder)
        origin["bfloat16"] = precision.bfloat16
        stores = {kind.name: KindStore(folder, kind, origin) for kind in kinds}
        work = [
            (source, rows)
            for source in sampler.sources
            for rows in bucket(missing(source, stores), round(sampler.settings.seconds / 0.01))
            if rows
        ]
        if work:
            say(f"  teacher's targets in {precision}")
        for source, rows in track(work, "teacher's targets", len(work)):
            label(stores, teacher, sampler, source, rows, precision.bfloat16)
    return TargetStore(teacher, stores)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process stores targets in the folder; the end of a process lets go."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def missing(source: Source, stores: dict[str, KindStore]) -> list[Row]:
    """Rows that some kind lacks."""
    return [
        row
        for row in source.store.rows
        if any(key_of(row) not in store.places for store in stores.values())
    ]


@torch.no_grad()
def label(
    stores: dict[str, KindStore],
    teacher: Transducer,
    sampler: BatchSampler,
    source: Source,
    rows: list[Row],
    bfloat16: bool,
) -> None:
    batch = sampler.collate(source.store, rows)
    keys = [key_of(row) for row in rows]
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        view = view_batch(teacher, batch)
        for store in stores.values():
            items = store.kind.label(view, batch)
            check_finite(rows, items)
            pairs = zip(keys, items, strict=True)
            store.append((key, item) for key, item in pairs if key not in store.places)


def check_finite(rows: list[Row], items: list[Item]) -> None:
    for row, item in zip(rows, items, strict=True):
        for name, part in item.items():
            if part.dtype.kind == "f" and not np.isfinite(part).all():
                raise InputError(
                    f"the teacher says NaN or infinity of utterance {row.data}/{row.id} ({name}): "
                    "look at its audio, or at the teacher's weights"
                )
