"""What the teacher says of a training set, stored once: no teacher runs while a student learns.

# Letters: B utterances, T encoder frames, U labels.

    folder/moves.f16    per utterance log_blank (T, U+1), then log_emit (T, U), float16
           index.json   per utterance: where it begins, T and U

Two numbers a lattice node in float16 are 2 kB for a command of two seconds. A student hears every
utterance a dozen times in a run, and the teacher's pass was 60 of 160 ms a step (40 s of audio,
teacher of 5.5 M, student of 0.55 M): stored targets buy 1.6 times the steps. Teacher and student
must see the same features, so batches with stored targets are not masked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from compress.atomic import write_json
from compress.data.batches import Batch, BatchSampler, Source, bucket
from compress.data.store import Row
from compress.distill.view import View, view_batch
from compress.models.transducer import Transducer
from compress.progress import track

LOWEST = -6e4  # float16 ends at -65504; such a move has probability zero in any precision


class Place(NamedTuple):
    """Where an utterance's values begin, and the size of its lattice."""

    start: int
    num_frames: int
    num_labels: int


class TargetStore:
    """Read access to a folder of `store_targets`."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        self.places = {key: Place(*place) for key, place in index.items()}
        self.moves = np.memmap(folder / "moves.f16", np.float16, "r")

    def view(self, batch: Batch, num_frames: int) -> View:
        """The teacher's view of a batch, padded to `num_frames` encoder frames with zeros."""
        num_labels = batch.targets.shape[1]
        log_blank = np.zeros((len(batch.rows), num_frames, num_labels + 1), np.float32)
        log_emit = np.zeros((len(batch.rows), num_frames, num_labels), np.float32)
        places = [self.places[key_of(row)] for row in batch.rows]
        for row, (start, t, u) in enumerate(places):
            middle, end = start + t * (u + 1), start + t * (2 * u + 1)
            log_blank[row, :t, : u + 1] = self.moves[start:middle].reshape(t, u + 1)
            log_emit[row, :t, :u] = self.moves[middle:end].reshape(t, u)
        lengths = torch.tensor([place.num_frames for place in places])
        return View(lengths, torch.from_numpy(log_blank), torch.from_numpy(log_emit))


def key_of(row: Row) -> str:
    """Ids are unique in a data set, not across them."""
    return f"{row.data}/{row.id}"


def store_targets(folder: Path, teacher: Transducer, sampler: BatchSampler) -> TargetStore:
    """Run the teacher over all utterances of the sampler's sources, or find it done before."""
    if not (folder / "index.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        frames = round(sampler.settings.seconds / 0.01)
        work = [
            (source, rows)
            for source in sampler.sources
            for rows in bucket(source.store.rows, frames)
        ]
        index: dict[str, Place] = {}
        start = 0
        growing = folder / f"moves.{os.getpid()}.part"
        with growing.open("wb") as file:
            for source, rows in track(work, "teacher's targets", len(work)):
                for row, values, shape in label_rows(teacher, sampler, source, rows):
                    file.write(values.tobytes())
                    index[key_of(row)] = Place(start, *shape)
                    start += len(values)
        growing.replace(folder / "moves.f16")
        write_json(folder / "index.json", index)
    return TargetStore(folder)


@torch.no_grad()
def label_rows(
    teacher: Transducer, sampler: BatchSampler, source: Source, rows: list[Row]
) -> Iterator[tuple[Row, np.ndarray, tuple[int, int]]]:
    """Each row with its float16 values and (T, U)."""
    batch = sampler.collate(source.store, rows)
    with torch.autocast("cpu", torch.bfloat16):
        view = view_batch(teacher, batch)
    lengths = zip(view.logit_lengths.tolist(), batch.target_lengths.tolist(), strict=True)
    for index, (row, (t, u)) in enumerate(zip(rows, lengths, strict=True)):
        parts = view.log_blank[index, :t, : u + 1], view.log_emit[index, :t, :u]
        yield row, flatten(*parts), (t, u)


def flatten(log_blank: Tensor, log_emit: Tensor) -> np.ndarray:
    values = torch.cat([log_blank.flatten(), log_emit.flatten()])
    return values.clamp(min=LOWEST).numpy().astype(np.float16)
