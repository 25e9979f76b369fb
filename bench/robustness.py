"""Word errors of bundles when the sound is bad: noise, a telephone's rate, clipping, a faint voice.

    python bench/robustness.py [BUNDLE...] [--quick] [--packs DIR] [--num 400]

Each bundle in its default precision, chunk by chunk through streaming/, on the test splits of
speech_commands and digits_fsdd and on synthetic speech. Noise is that of the noise pack, each
utterance with another one, the same for all bundles and levels; without the packs only synthetic
speech in noise made by numpy is judged. Writes bench/results/robustness.{json,md}; --quick: 60
utterances of each set, robustness-quick.*.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compress.data.augment import add_noise, draw_noise
from compress.data.cuts import read_samples
from compress.data.noise import read_pack
from compress.data.sets import real_cuts, spread, synthetic_cuts
from compress.data.store import text_of
from compress.evaluate import word_error_rate
from compress.progress import track
from default_bundle import teacher_bundle
from streaming import Recognizer, open_bundle
from streaming.audio import resample
from streaming.features import FloatArray

BENCH = Path(__file__).parent
SHARED = BENCH.parents[1] / "shared" / "data"
RATE = 16000
PACKS = ("speech_commands", "digits_fsdd")
CLIP_GAIN, FAINT_DB = 8.0, -20.0  # 18 dB over full scale; a tenth of the voice
Heard = tuple[FloatArray, int]  # samples and their rate
Condition = Callable[[FloatArray, FloatArray], Heard]

# What happens to (speech, noise of the same length).
CONDITIONS: dict[str, Condition] = {
    "clean": lambda speech, noise: (speech, RATE),
    **{
        f"noise {snr} dB": lambda speech, noise, snr=snr: (add_noise(speech, noise, snr), RATE)
        for snr in (20, 10, 5, 0)
    },
    "8 kHz": lambda speech, noise: (resample(speech, RATE, 8000), 8000),
    "clipped": lambda speech, noise: (np.clip(CLIP_GAIN * loud(speech), -1, 1), RATE),
    "faint": lambda speech, noise: (speech * np.float32(10 ** (FAINT_DB / 20)), RATE),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="*", help="the built-in teacher by default")
    parser.add_argument("--quick", action="store_true", help="60 utterances of each set")
    parser.add_argument("--packs", type=Path, default=SHARED, help="folder of the data packs")
    parser.add_argument("--num", type=int, default=400, help="utterances of each set")
    arguments = parser.parse_args()
    bundles = arguments.bundles or [teacher_bundle()]
    num = 60 if arguments.quick else arguments.num
    sets = read_sets(arguments.packs, num)
    pack = arguments.packs / "noise"
    noises, _ = read_pack(str(pack) if pack.is_dir() else None)
    rows = [row for bundle in bundles for row in judge(bundle, sets, noises)]
    name = "robustness-quick" if arguments.quick else "robustness"
    results = BENCH / "results" / name
    results.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    results.with_suffix(".md").write_text(to_markdown(rows))
    print(to_markdown(rows))
    print(json.dumps(rows))


def read_sets(packs: Path, num: int) -> dict[str, list[tuple[FloatArray, str]]]:
    cuts = {
        f"{pack}/test": spread(real_cuts(str(packs / pack), "test"), num)
        for pack in PACKS
        if (packs / pack).is_dir()
    }
    cuts["synthetic/test"] = synthetic_cuts(num, "test", 0)
    return {
        name: [(read_samples(cut), text_of(cut)) for cut in found] for name, found in cuts.items()
    }


def judge(
    bundle: Path,
    sets: dict[str, list[tuple[FloatArray, str]]],
    noises: Sequence[FloatArray],
) -> list[dict[str, Any]]:
    recognizer, rows = open_bundle(bundle), []
    cases = [(name, condition) for name in sets for condition in CONDITIONS]
    for name, condition in track(cases, recognizer.info.name, len(cases)):
        texts = [text for _, text in sets[name]]
        heard = [
            decode(recognizer, *CONDITIONS[condition](speech, noise_for(speech, noises, number)))
            for number, (speech, _) in enumerate(sets[name])
        ]
        rate = word_error_rate(texts, heard)
        wer, low, high = (round(value, 4) for value in (rate.wer, rate.low, rate.high))
        rows.append(
            {
                "bundle": recognizer.info.name,
                "precision": recognizer.session.precision,
                "data": name,
                "condition": condition,
                "wer": wer,
                "low": low,
                "high": high,
                "words": rate.words,
            }
        )
    return rows


def noise_for(speech: FloatArray, noises: Sequence[FloatArray], number: int) -> FloatArray:
    """The same for an utterance in every condition."""
    return draw_noise(np.random.default_rng(number), noises, len(speech))


def loud(speech: FloatArray) -> FloatArray:
    return speech / max(float(np.abs(speech).max()), 1e-5)


def decode(recognizer: Recognizer, samples: FloatArray, rate: int) -> str:
    stream = recognizer.create_stream()
    stream.accept(samples.astype(np.float32), rate)
    return stream.finish()


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """A line for each bundle and set, a column for each condition: WER in % and its interval."""
    lines = [f"| bundle | data | {' | '.join(CONDITIONS)} |", "|" + "---|" * (len(CONDITIONS) + 2)]
    for bundle, data in dict.fromkeys((row["bundle"], row["data"]) for row in rows):
        found = {r["condition"]: r for r in rows if (r["bundle"], r["data"]) == (bundle, data)}
        cells = [
            f"{100 * r['wer']:.1f} [{100 * r['low']:.1f}, {100 * r['high']:.1f}]"
            for r in map(found.__getitem__, CONDITIONS)
        ]
        lines.append(f"| {bundle} | {data} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
