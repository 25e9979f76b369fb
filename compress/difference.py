"""What a precision costs in word errors against fp32, on the same utterances decoded from audio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import kaldialign
import numpy as np

from compress.measure import Utterance, decode_samples
from export.parity import EXACT, order_precisions
from streaming import Recognizer
from streaming.bundle import BundleInfo

REPLICATIONS = 1000
Sets = Mapping[str, Sequence[Utterance]]  # name of a set -> utterances


@dataclass(frozen=True)
class WerDifference:
    """WER of a precision less that of fp32, a fraction; the interval is 95 %, over utterances."""

    data: str
    precision: str
    wer: float
    wer_fp32: float
    difference: float
    low: float
    high: float
    words: int

    def __str__(self) -> str:
        low, high = (f"{100 * value:+.2f}" for value in (self.low, self.high))
        more = f"{100 * self.difference:+.2f} points [{low}, {high}]"
        return (
            f"{self.data}, {self.words} words: WER {100 * self.wer:.2f} % in {self.precision}, "
            f"{100 * self.wer_fp32:.2f} % in fp32: {more}"
        )


def wer_differences(info: BundleInfo, sets: Sets) -> Iterator[WerDifference]:
    """Each precision against fp32 on every set with text; nothing for a bundle without fp32."""
    others = [precision for precision in order_precisions(info) if precision != EXACT]
    spoken = {name: [u for u in utterances if u[2].split()] for name, utterances in sets.items()}
    if EXACT not in info.files:
        return
    for name, utterances in spoken.items():
        if not utterances:
            continue
        said = [text for _, _, text in utterances]
        base = decode(info, EXACT, utterances)
        for precision in others:
            heard = decode(info, precision, utterances)
            yield compare_texts(name, precision, said, base, heard)


def decode(info: BundleInfo, precision: str, utterances: Sequence[Utterance]) -> list[str]:
    recognizer = Recognizer(info, precision)
    return [decode_samples(recognizer, samples)[0].text for _, samples, _ in utterances]


def compare_texts(
    data: str, precision: str, said: Sequence[str], base: Sequence[str], heard: Sequence[str]
) -> WerDifference:
    """Paired bootstrap (Bisani and Ney 2004): both systems on the same resampled utterances.

    said: what was said, at least a word each; base, heard: what fp32 and the precision heard.
    """
    words = np.array([len(text.split()) for text in said])
    errors = np.array(
        [[_errors(*pair) for pair in zip(said, h, strict=True)] for h in (base, heard)]
    )
    chosen = np.random.default_rng(0).integers(0, len(said), (REPLICATIONS, len(said)))
    more = (errors[1] - errors[0])[chosen].sum(1) / words[chosen].sum(1)
    low, high = np.quantile(more, [0.025, 0.975])
    wer_fp32, wer = (float(e.sum() / words.sum()) for e in errors)
    return WerDifference(
        data, precision, wer, wer_fp32, wer - wer_fp32, float(low), float(high), int(words.sum())
    )


def _errors(said: str, heard: str) -> int:
    total: int = kaldialign.edit_distance(said.split(), heard.split())["total"]
    return total
