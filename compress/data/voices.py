"""The voices of espeak-ng that speak the synthetic data, and which of them are held out."""

from __future__ import annotations

import collections
import random
from dataclasses import dataclass

ACCENTS = (
    "en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029",
)  # fmt: skip
# ruff: noqa: SIM905  (name lists read as text)
# 75 variants. Left out are whispers, croaks, robots, monsters and speeded voices, and those whose
# files move a formant by 40 % or more (zac, Lee, shelby, kaukovalta) or add strong echo (Alicia,
# Marco, RicishayMax2, RicishayMax3): in a nearest-phone check they are the outliers, 14 to 36 %
# of the frames right against a median near 47 %.
VARIANTS = (
    "Alex Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Mario Michael Mike "
    "Nguyen Reed RicishayMax Storm adam anika announcer antonio aunty belinda benjamin boris "
    "caleb david ed edward edward2 f1 f2 f3 f4 f5 grandma grandpa gustave ian iven2 iven3 "
    "iven4 john klatt klatt2 klatt3 klatt6 linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel "
    "miguel mike2 norbert pablo paul pedro quincy rob robert sandro steph steph2 steph3 "
    "travis victor"
).split()


@dataclass(frozen=True)
class Voice:
    """One way of speaking: accent and variant name the voice, three settings move it.

    rate in words a minute; pitch and range (how far the pitch moves) from 0 to 99.
    """

    accent: str
    variant: str
    rate: int = 160
    pitch: int = 50
    range: int = 50

    @property
    def speaker(self) -> str:
        """Who speaks, for disjoint splits: the variant, whatever the accent."""
        return f"espeak_{self.variant.lower()}"


def voices() -> list[Voice]:
    """Every variant in every accent, at the middle rate and pitch."""
    return [Voice(accent, variant) for accent in ACCENTS for variant in VARIANTS]


def split_voices(seed: int = 0) -> dict[str, list[Voice]]:
    """Voices of "train", "dev" and "test"; no speaker or sibling (iven2, iven3) is in two.

    Of the variants without siblings one in six is held out for dev and one in six for test;
    families always train, so that no held-out set is mostly one family.
    """
    families = collections.Counter(_family(variant) for variant in VARIANTS)
    alone = sorted(family for family, num_siblings in families.items() if num_siblings == 1)
    random.Random(f"voices {seed}").shuffle(alone)
    held_out = len(alone) // 6
    split_of = dict.fromkeys(alone[:held_out], "test")
    split_of.update(dict.fromkeys(alone[held_out : 2 * held_out], "dev"))
    split: dict[str, list[Voice]] = {"train": [], "dev": [], "test": []}
    for voice in voices():
        split[split_of.get(_family(voice.variant), "train")].append(voice)
    return split


def _family(variant: str) -> str:
    """gene2 -> gene, but f1..f5 and m1..m8 are people of their own."""
    return variant if len(variant) == 2 else variant.rstrip("0123456789")
