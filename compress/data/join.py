"""Join clips of one speaker, isolated words or digits, into longer strings.

speech_commands and digits_fsdd hold one word a clip; a recogniser trained on those alone never
hears one word follow another. The gaps between clips are filled with noise as quiet as the
clips' own quietest moment: digital silence there would mark every join.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from compress.data.cuts import SAMPLE_RATE, read_samples, split_name
from streaming.errors import InputError
from streaming.features import FloatArray

if TYPE_CHECKING:
    from lhotse.cut import Cut

GAP_SECONDS = (0.05, 0.3)
FADE_SAMPLES = 80  # 5 ms, so that no clip starts with a click
FLOOR_BLOCK_SAMPLES = 320  # 20 ms, the quietest of which is a clip's noise floor


@dataclass(frozen=True)
class JoinedUtterance:
    """Clips to be read one after the other, gaps_seconds[i] of quiet after pieces[i]."""

    id: str
    speaker: str
    text: str
    pieces: tuple[Cut, ...]
    gaps_seconds: tuple[float, ...]

    @property
    def duration(self) -> float:
        return sum(cut.duration for cut in self.pieces) + sum(self.gaps_seconds)


def join_cuts(
    cuts: Iterable[Cut], num: int, words_range: tuple[int, int], seed: int
) -> list[JoinedUtterance]:
    """Draw num strings of words_range[0]..words_range[1] clips, each string of one speaker.

    A speaker comes up as often as he has clips. Within a string no clip comes twice, as far as
    the speaker has enough. The same cuts in any order and the same seed give the same strings.
    Raises InputError for a cut without a speaker and for speakers that are in two splits.
    """
    low, high = words_range
    if not 1 <= low <= high:
        raise InputError(f"words_range is (fewest, most) clips of a string, got {words_range}")
    speakers = group_by_speaker(cuts)
    names = sorted(speakers)
    shares = np.array([len(speakers[name]) for name in names], dtype=float)
    rng = np.random.default_rng(seed)
    joined = []
    for index in range(num):
        name = names[rng.choice(len(names), p=shares / shares.sum())]
        num_words = int(rng.integers(low, high + 1))
        clips = speakers[name]
        drawn = rng.choice(len(clips), size=num_words, replace=num_words > len(clips))
        pieces = tuple(clips[position] for position in drawn)
        what = crc32(" ".join(cut.id for cut in pieces).encode())
        joined.append(
            JoinedUtterance(
                id=f"joined-{seed}-{index:06d}-{what:08x}",
                speaker=name,
                text=" ".join(cut.supervisions[0].text for cut in pieces),
                pieces=pieces,
                gaps_seconds=(*rng.uniform(*GAP_SECONDS, size=num_words - 1), 0.0),
            )
        )
    return joined


def group_by_speaker(cuts: Iterable[Cut]) -> dict[str, Sequence[Cut]]:
    speakers: dict[str, list[Cut]] = {}
    for cut in sorted(cuts, key=lambda cut: cut.id):
        speaker = cut.supervisions[0].speaker
        if not speaker:
            raise InputError(f"{cut.id} names no speaker: clips are joined speaker by speaker")
        speakers.setdefault(speaker, []).append(cut)
        if split_name(cut) != split_name(speakers[speaker][0]):
            raise InputError(f"speaker {speaker} is in two splits: join one split at a time")
    if not speakers:
        raise InputError("no clips to join: choose a data set and split that holds some")
    return dict(speakers)


def read_joined(joined: JoinedUtterance) -> FloatArray:
    """The samples of a joined utterance, mono float32 at 16 kHz; the same on every call."""
    rng = np.random.default_rng(crc32(joined.id.encode()))
    clips = [fade(read_samples(cut)) for cut in joined.pieces]
    floor = min(noise_floor(clip) for clip in clips)
    blocks = []
    for clip, gap_seconds in zip(clips, joined.gaps_seconds, strict=True):
        gap = rng.normal(0.0, floor, round(gap_seconds * SAMPLE_RATE))
        blocks += [clip, gap.astype(np.float32)]
    return np.concatenate(blocks)


def fade(clip: FloatArray) -> FloatArray:
    """Ramp the first and last 5 ms; a copy."""
    faded = clip.copy()
    length = min(FADE_SAMPLES, len(clip) // 2)
    ramp = np.linspace(0.0, 1.0, length, endpoint=False, dtype=np.float32)
    faded[:length] *= ramp
    faded[len(clip) - length :] *= ramp[::-1]
    return faded


def noise_floor(clip: FloatArray) -> float:
    """Root mean square of the quietest 20 ms, the faded ends left out."""
    inner = clip[FADE_SAMPLES : len(clip) - FADE_SAMPLES]
    num_blocks = len(inner) // FLOOR_BLOCK_SAMPLES
    if not num_blocks:
        return 0.0
    blocks = inner[: num_blocks * FLOOR_BLOCK_SAMPLES].reshape(num_blocks, -1)
    return float(np.sqrt((blocks.astype(np.float64) ** 2).mean(axis=1).min()))
