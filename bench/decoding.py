"""What beam search, a language model and hotwords do to word errors, and what they cost.

    python bench/decoding.py [BUNDLE] [--data PACK]... [--noise PACK] [--quick]

Without --data and --noise they are digits_fsdd, speech_commands and noise of ../shared/data.

Every set's test split is decoded in each way, as it is and with noise. The language model is a
3-gram of the train split's transcripts (compress train-lm). The hotwords are a menu of five for
every utterance: the words that are said, and others of the set, drawn. Intervals are 95 %, drawn
over utterances; a difference is drawn for both ways at once. Costs are ratios to greedy search on
the same half minute, in rounds that alternate.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kaldialign
import numpy as np
import soundfile

from bootstrap import resample, with_interval
from compress.cli_options import DEMO_TEACHER
from compress.data.sets import read_utterances, real_cuts, spread
from compress.evaluate import word_error_rate
from compress.progress import track
from compress.train_lm import LmSettings, train_lm
from default_bundle import teacher_bundle
from streaming import Recognizer, open_bundle

DATA = Path(__file__).parents[2] / "shared" / "data"
RESULTS = Path(__file__).with_name("results")
SPEED_SECONDS = 30
MENU = 5
Utterances = list[tuple[str, np.ndarray, str]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("bundle", type=Path, nargs="?", help="the built-in teacher in int8")
    parser.add_argument("--data", action="append", help="a pack; repeat for several")
    parser.add_argument("--tokenizer", type=Path, default=DEMO_TEACHER, help="of the bundle")
    parser.add_argument("--num", type=int, default=700, help="utterances of each set, at most")
    parser.add_argument("--noise", type=Path, help="a pack of noises")
    parser.add_argument("--snr", type=float, default=5.0, help="dB of speech over noise")
    parser.add_argument("--quick", action="store_true", help="a fifth of the utterances")
    arguments = parser.parse_args()
    if not arguments.data:
        arguments.data = [str(DATA / name) for name in ("digits_fsdd", "speech_commands")]
        arguments.noise = arguments.noise or DATA / "noise"
    arguments.bundle = arguments.bundle or teacher_bundle()
    run(arguments)


def run(arguments: argparse.Namespace) -> None:
    num = arguments.num // 5 if arguments.quick else arguments.num
    found = {}
    for data in arguments.data:
        utterances = read_utterances(spread(real_cuts(data, "test"), num))
        name = Path(data).name
        found[name] = measure_set(arguments, data, name, utterances)
        if arguments.noise:
            name = f"{name}, {arguments.snr:g} dB"
            noisy = add_noise(utterances, arguments.noise, arguments.snr)
            found[name] = measure_set(arguments, data, name, noisy)
    result = {"bundle": "/".join(arguments.bundle.parts[-2:]), "sets": found}
    quick = "-quick" if arguments.quick else ""
    (RESULTS / f"decoding{quick}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def add_noise(utterances: Utterances, folder: Path, snr: float) -> Utterances:
    """Each with a piece of one of the pack's noises, the same ones at every call."""
    rng = np.random.default_rng(0)
    files = sorted((folder / "audio").iterdir())
    noises = [soundfile.read(file, dtype="float32", always_2d=True)[0][:, 0] for file in files]
    mixed = []
    for name, samples, text in utterances:
        noise = noises[rng.integers(len(noises))]
        piece = np.resize(noise[rng.integers(len(noise)) :], len(samples))
        power = float((samples**2).mean() / max((piece**2).mean(), 1e-12))
        louder = samples + piece * np.sqrt(power / 10 ** (snr / 10))
        mixed.append((name, louder.clip(-1, 1).astype(np.float32), text))
    return mixed


def measure_set(
    arguments: argparse.Namespace, data: str, name: str, utterances: Utterances
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        train_lm(LmSettings(order=3), arguments.tokenizer, [], [data], Path(place) / "lm")
        recognizers = {
            way: open_bundle(arguments.bundle, **options)
            for way, options in ways(Path(place) / "lm" / "lm.arpa").items()
        }
        menus = draw_menus(data, utterances)
        texts = {
            way: decode(recognizer, way, utterances, menus if "hotwords" in way else None)
            for way, recognizer in recognizers.items()
        }
        costs = measure_costs(recognizers, utterances)
    rows = [describe(way, texts, utterances, costs[way]) for way in texts]
    print_table(name, len(utterances), rows)
    return {"utterances": len(utterances), "rows": rows}


def ways(lm: Path) -> dict[str, dict[str, Any]]:
    """Name -> the options of open_bundle(); the first is what the others are compared with."""
    beam = {"decoding_method": "modified_beam_search"}
    return {
        "greedy": {},
        "greedy, LM 0.3": {"lm": lm},
        "greedy, hotwords": {},
        "beam 4": beam,
        "beam 4, LM 0.3": beam | {"lm": lm},
        "beam 4, hotwords": beam,
    }


def draw_menus(data: str, utterances: Utterances) -> list[list[str]]:
    """Five words for each utterance, those that are said among them."""
    rng = np.random.default_rng(0)
    known = {word for cut in real_cuts(data, "train") for word in cut.supervisions[0].text.split()}
    menus = []
    for *_, text in utterances:
        said = sorted(set(text.split()))
        others = rng.permutation(sorted(known - set(said)))[: max(0, MENU - len(said))]
        menus.append([*said, *others.tolist()])
    return menus


def decode(
    recognizer: Recognizer, way: str, utterances: Utterances, menus: list[list[str]] | None
) -> list[str]:
    texts = []
    for n, (_, samples, _) in enumerate(track(utterances, way, len(utterances))):
        stream = recognizer.create_stream(hotwords=menus[n] if menus else ())
        stream.accept(samples)
        texts.append(stream.finish())
    return texts


def describe(
    way: str, texts: dict[str, list[str]], utterances: Utterances, cost: float
) -> dict[str, Any]:
    said = [text for *_, text in utterances]
    rate = word_error_rate(said, texts[way])
    more = errors(said, texts[way]) - errors(said, texts[next(iter(texts))])
    words = np.array([len(text.split()) for text in said])
    draws = [(more @ weights).sum() / (words @ weights) for _, weights in resample(1, len(said))]
    points = with_interval(more.sum() / words.sum(), draws)
    return {
        "way": way,
        "wer": round(100 * rate.wer, 2),
        "low": round(100 * rate.low, 2),
        "high": round(100 * rate.high, 2),
        "points": [round(100 * value, 2) for value in points],
        "cost": round(cost, 2),
    }


def errors(said: Sequence[str], heard: Sequence[str]) -> np.ndarray:
    """Word errors of each utterance."""
    pairs = zip(said, heard, strict=True)
    return np.array([kaldialign.edit_distance(a.split(), b.split())["total"] for a, b in pairs])


def measure_costs(
    recognizers: dict[str, Recognizer], utterances: Utterances, rounds: int = 5
) -> dict[str, float]:
    """Median time of each way over the median of the first."""
    samples = np.concatenate([samples for _, samples, _ in utterances])[: SPEED_SECONDS * 16000]
    times: dict[str, list[float]] = {name: [] for name in recognizers}
    for _ in range(rounds):
        for name, recognizer in recognizers.items():
            stream = recognizer.create_stream()
            started = time.perf_counter()
            stream.accept(samples)
            stream.finish()
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {name: value / medians[next(iter(medians))] for name, value in medians.items()}


def print_table(name: str, utterances: int, rows: list[dict[str, Any]]) -> None:
    print(f"\n{name}, {utterances} utterances\n")
    print("| search | WER [95 %] | points against greedy | time |\n|---|---|---|---|")
    for row in rows:
        points, low, high = row["points"]
        print(
            f"| {row['way']} | {row['wer']:.2f} [{row['low']:.2f}, {row['high']:.2f}] % | "
            f"{points:+.2f} [{low:+.2f}, {high:+.2f}] | {row['cost']:.2f} |"
        )


if __name__ == "__main__":
    main()
