"""The speech of the benchmark: real recordings, some of whose transcripts are hidden.

all     train splits of both packs
few     a tenth of the speakers of `all`: the transcribed part when transcripts are scarce
more    dev splits, never trained on by any teacher; their transcripts are hidden
rest    the speakers of `all` that are not in `few`: settings of `few` cells are chosen here
test    what the table is about
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from compress.data.augment import AugmentSettings
from compress.data.batches import Source
from compress.data.join import join_cuts
from compress.data.noise import Augmenter
from compress.data.sets import cache_folder, real_cuts
from compress.data.store import FeatureStore, build_store

PACKS = ("speech_commands", "digits_fsdd")
FEW_DIGITS = 5  # the few hear every fifth recording of one speaker of digits
WORDS_RANGE = (2, 6)


@dataclass(frozen=True)
class Hearing:
    """How often an utterance is heard, each time in other noise; clips joined into strings."""

    copies: int
    joined: int


def augmenter_of(packs: Path) -> Augmenter:
    settings = AugmentSettings(noise_probability=0.5, room_probability=0.3)
    return Augmenter(packs / "noise", settings)


def is_few(cut) -> bool:
    speaker = cut.supervisions[0].speaker
    if cut.custom["data"] == "digits_fsdd":
        return speaker == "fsdd_jackson" and crc32(cut.id.encode()) % FEW_DIGITS == 0
    return crc32(speaker.encode()) % 10 == 0


def choose_cuts(packs: Path, which: str) -> dict[str, list]:
    """Cuts by pack."""
    split = {"more": "dev", "test": "test", "dev": "dev"}.get(which, "train")
    cuts = {pack: real_cuts(str(packs / pack), split) for pack in PACKS}
    if which in ("few", "rest"):
        keep = which == "few"
        cuts = {pack: [cut for cut in some if is_few(cut) == keep] for pack, some in cuts.items()}
    return cuts


def train_sources(name: str, cuts: dict[str, list], packs: Path, hearing: Hearing) -> list[Source]:
    """Features to learn from: copies in noise, and strings of one speaker's clips."""
    sources = []
    for pack, some in cuts.items():
        strings = join_cuts(some, hearing.joined, WORDS_RANGE, 0)
        store = build_store(
            cache_folder(),
            f"bench-{name}-{pack}",
            [*some, *strings],
            augmenter_of(packs),
            hearing.copies,
        )
        sources.append(Source(store, store.seconds))
    return sources


def plain_store(name: str, cuts: dict[str, list]) -> FeatureStore:
    """Features to be judged on, both packs together."""
    both = [cut for some in cuts.values() for cut in some]
    return build_store(cache_folder(), f"bench-{name}", both)
