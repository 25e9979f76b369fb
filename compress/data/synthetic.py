"""Synthetic speech as Lhotse cuts: the grammar's sentences in espeak-ng's voices, with times.

    folder/train-2000-1f0c.../shard-00000.wav      250 utterances one after another, 16 kHz, 16 bit
                              shard-00000.json     their cuts, kept so that a killed run goes on
                              cuts.jsonl.gz        all cuts, paths relative to this folder
                              settings.json        what the folder's name is the hash of

Utterance i depends on (settings, split, seed, i) alone: any number of workers gives one result.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import multiprocessing
import os
import random
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from compress.data import grammar
from compress.data.espeak import SAMPLE_RATE, synthesize
from compress.data.voices import Voice, split_voices
from compress.interrupts import ignore_interrupts
from compress.progress import track
from streaming.errors import InputError

if TYPE_CHECKING:
    from lhotse import CutSet

SHARD_UTTERANCES = 250


@dataclass(frozen=True)
class SyntheticSettings:
    """Ranges that each utterance draws from, uniformly.

    rate in words a minute, pitch and range from 0 to 99, levels (RMS) in dB to full scale.
    """

    rate: tuple[int, int] = (120, 230)
    pitch: tuple[int, int] = (20, 80)
    range: tuple[int, int] = (20, 80)
    silence_seconds: tuple[float, float] = (0.1, 0.4)
    speech_level_db: tuple[float, float] = (-32.0, -16.0)
    noise_level_db: tuple[float, float] = (-80.0, -60.0)
    voice_seed: int = 0
    version: int = 1


def make_synthetic(
    folder: str | Path,
    num_utterances: int,
    split: str,
    seed: int = 0,
    num_workers: int = 2,
    settings: SyntheticSettings = SyntheticSettings(),
) -> CutSet:
    """Make, or find in the cache `folder`, `num_utterances` cuts of `split` (train, dev, test).

    A cut's supervision has text, speaker and alignment {"phone": ..., "word": ...} with times from
    the cut's start. A new folder gets its name when it is whole. Raises InputError for another
    split.
    """
    target = prepare_synthetic(folder, num_utterances, split, seed, num_workers, settings)
    return load_synthetic(target)


def load_synthetic(folder: str | Path) -> CutSet:
    """Read the cuts of one finished folder, in memory, with absolute paths."""
    from lhotse import CutSet

    cuts = CutSet.from_jsonl(Path(folder) / "cuts.jsonl.gz")
    return cuts.with_recording_path_prefix(Path(folder).resolve()).to_eager()


def prepare_synthetic(
    folder: str | Path,
    num_utterances: int,
    split: str,
    seed: int,
    num_workers: int,
    settings: SyntheticSettings,
) -> Path:
    """The part of `make_synthetic` that writes: returns the finished folder."""
    known = split_voices(settings.voice_seed)
    if split not in known:
        raise InputError(f"synthetic speech has no split {split!r}: use {', '.join(known)}")
    record = {
        "num_utterances": num_utterances,
        "split": split,
        "seed": seed,
        "texts": _digest(_texts(split, seed, num_utterances)),
        "voices": _digest([f"{v.accent}+{v.variant}" for v in known[split]]),
        **asdict(settings),
    }
    name = f"{split}-{num_utterances}-{_digest([json.dumps(record, sort_keys=True)])}"
    target = Path(folder) / name
    if target.exists():
        return target
    growing = target.with_name(target.name + ".part")
    growing.mkdir(parents=True, exist_ok=True)
    _write_shards(growing, num_utterances, split, seed, num_workers, settings)
    _write_atomically(growing / "settings.json", json.dumps(record, indent=1).encode())
    try:
        growing.rename(target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(growing)  # another process finished the same folder first
    return target


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _texts(split: str, seed: int, num: int) -> list[str]:
    return grammar.sentences(num, random.Random(f"{split} {seed}").getrandbits(40))


def _write_shards(
    folder: Path,
    num_utterances: int,
    split: str,
    seed: int,
    num_workers: int,
    settings: SyntheticSettings,
) -> None:
    texts = _texts(split, seed, num_utterances)
    starts = range(0, num_utterances, SHARD_UTTERANCES)
    shards = [(first, texts[first : first + SHARD_UTTERANCES]) for first in starts]
    write = partial(_write_shard, folder, split, seed, settings)
    show = partial(track, description=f"synthetic speech, {split}", total=len(shards))
    if num_workers <= 1 or len(shards) == 1:
        rows = [row for shard in show(map(write, shards)) for row in shard]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_workers, context, ignore_interrupts) as pool:
            rows = [row for shard in show(pool.map(write, shards)) for row in shard]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    _write_atomically(folder / "cuts.jsonl.gz", gzip.compress(lines.encode(), 6, mtime=0))


def _write_shard(
    folder: Path, split: str, seed: int, settings: SyntheticSettings, shard: tuple[int, list[str]]
) -> list[dict[str, Any]]:
    """Write one shard and its cuts, or read the cuts of a shard that is there."""
    first, texts = shard
    name = f"shard-{first // SHARD_UTTERANCES:05d}"
    cuts_path = folder / f"{name}.json"
    if cuts_path.exists():
        rows: list[dict[str, Any]] = json.loads(cuts_path.read_bytes())
        return rows
    voices = split_voices(settings.voice_seed)[split]
    blocks: list[np.ndarray] = []
    rows = []
    offset = 0
    for index, text in enumerate(texts, first):
        rng = random.Random(f"{split} {seed} {index}")
        samples, row = _make_utterance(text, voices, rng, settings)
        row["id"] = f"synthetic-{split}-{seed}-{index:06d}"
        row["start"] = offset / SAMPLE_RATE
        rows.append(row)
        blocks.append(samples)
        offset += len(samples)
    _finish_rows(rows, name, offset)
    growing = folder / f"{name}.{os.getpid()}.part"
    soundfile.write(growing, np.concatenate(blocks), SAMPLE_RATE, "PCM_16", format="WAV")
    growing.replace(folder / f"{name}.wav")
    _write_atomically(cuts_path, json.dumps(rows).encode())
    return rows


def _make_utterance(
    text: str, voices: list[Voice], rng: random.Random, settings: SyntheticSettings
) -> tuple[np.ndarray, dict[str, Any]]:
    """One utterance and its row, still without id, start and recording."""
    chosen = rng.choice(voices)
    voice = Voice(
        chosen.accent,
        chosen.variant,
        rng.randint(*settings.rate),
        rng.randint(*settings.pitch),
        rng.randint(*settings.range),
    )
    speech = synthesize(text, voice)
    lead, tail = (round(rng.uniform(*settings.silence_seconds) * SAMPLE_RATE) for _ in range(2))
    noise = np.random.default_rng(rng.getrandbits(64))
    samples = noise.standard_normal(lead + len(speech.samples) + tail, dtype=np.float32)
    samples *= 10 ** (rng.uniform(*settings.noise_level_db) / 20)
    samples[lead : lead + len(speech.samples)] += _set_level(
        speech.samples, rng.uniform(*settings.speech_level_db)
    )
    shift = lead / SAMPLE_RATE
    duration = len(samples) / SAMPLE_RATE
    supervision = {
        "start": 0.0,
        "duration": duration,
        "channel": 0,
        "text": text,
        "language": "English",
        "speaker": voice.speaker,
        "custom": {"voice": asdict(voice)},
        "alignment": {
            "phone": _align(speech.phones, shift),
            "word": _align(speech.words, shift),
        },
    }
    return samples, {"duration": duration, "supervisions": [supervision]}


def _align(items: list[tuple[float, float, str]], shift: float) -> list[list[Any]]:
    """Lhotse's rows [symbol, start, duration, score]."""
    return [[s, round(a + shift, 4), round(b - a, 4), None] for a, b, s in items]


def _set_level(samples: np.ndarray, level_db: float) -> np.ndarray:
    """Scale to an RMS of `level_db` to full scale, or as near as a peak of 0.95 allows."""
    rms = float(np.sqrt(np.mean(samples**2)))
    peak = float(np.abs(samples).max())
    return samples * min(10 ** (level_db / 20) / max(rms, 1e-6), 0.95 / max(peak, 1e-6))


def _finish_rows(rows: list[dict[str, Any]], name: str, num_samples: int) -> None:
    recording = {
        "id": name,
        "sources": [{"type": "file", "channels": [0], "source": f"{name}.wav"}],
        "sampling_rate": SAMPLE_RATE,
        "num_samples": num_samples,
        "duration": num_samples / SAMPLE_RATE,
        "channel_ids": [0],
    }
    for row in rows:
        row.update(channel=0, recording=recording, type="MonoCut")
        row["supervisions"][0].update(id=row["id"], recording_id=name)


def _write_atomically(path: Path, content: bytes) -> None:
    growing = path.with_name(f"{path.name}.{os.getpid()}.part")
    growing.write_bytes(content)
    growing.replace(path)
