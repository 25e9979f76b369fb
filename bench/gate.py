"""What the voice activity gate saves, and what it costs in words.

    python bench/gate.py [BUNDLE] [--data FOLDER...] [--noise FOLDER] [--margin 6] [--quick]

Talks of ten test utterances with pauses of 1 to 8 s before each, noise over all of it, decoded with
end-points as `compress listen` does, without the gate and with it. The interval of the difference
is a paired bootstrap over talks. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compress.data.augment import SAMPLE_RATE, draw_noise, speech_level
from compress.data.sets import cuts_to_judge, read_utterances, spread
from compress.difference import compare_texts
from compress.progress import track
from default_bundle import teacher_bundle
from streaming import GateSettings, Recognizer
from streaming.audio import read_audio
from streaming.bundle import read_bundle
from streaming.features import FloatArray

RESULTS = Path(__file__).with_name("results")
SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"
SNRS_DB = (40.0, 20.0, 10.0)
PAUSE_SECONDS = (1.0, 8.0)
UTTERANCES = 10  # of a talk


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("bundle", type=Path, nargs="?", help="the built-in teacher by default")
    packs = [str(SHARED / name) for name in ("speech_commands", "digits_fsdd")]
    parser.add_argument("--data", action="append")
    parser.add_argument("--noise", type=Path, default=SHARED / "noise")
    parser.add_argument("--margin", type=float, action="append", help="dB; repeat for several")
    parser.add_argument("--quick", action="store_true", help="a third of the utterances")
    arguments = parser.parse_args()
    bundle = arguments.bundle or teacher_bundle()
    noises = [read_audio(path)[0] for path in sorted((arguments.noise / "audio").rglob("*.flac"))]
    num = 100 if arguments.quick else 300
    talks = {
        name: make_talks([u[1:] for u in read_utterances(spread(cuts, num))])
        for name, cuts in cuts_to_judge(arguments.data or packs, 0).items()
    }
    gates = [GateSettings(margin_db=margin) for margin in arguments.margin or [6.0]]
    rows = []
    for name, some in talks.items():
        for snr_db in SNRS_DB:
            noisy = [(add_noise(*talk, snr_db, noises, n), talk[2]) for n, talk in enumerate(some)]
            rows += measure(bundle, gates, name, snr_db, noisy)
    quick = "-quick" if arguments.quick else ""
    (RESULTS / f"gate{quick}.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(rows))


Talk = tuple[FloatArray, float, str]


def make_talks(utterances: Sequence[tuple[FloatArray, str]]) -> list[Talk]:
    """Samples, the level of the speech in them, and what is said."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(utterances))
    talks = []
    for start in range(0, len(order) - UTTERANCES + 1, UTTERANCES):
        some = [utterances[i] for i in order[start : start + UTTERANCES]]
        pieces = []
        for samples, _ in some:
            pause = np.zeros(round(rng.uniform(*PAUSE_SECONDS) * SAMPLE_RATE), dtype=np.float32)
            pieces += [pause, samples]
        level = speech_level(np.concatenate([samples for samples, _ in some]))
        talks.append((np.concatenate(pieces), level, " ".join(text for _, text in some)))
    return talks


def add_noise(
    samples: FloatArray, level: float, _: str, snr_db: float, noises: Sequence[FloatArray], n: int
) -> FloatArray:
    noise = draw_noise(np.random.default_rng(n), noises, len(samples))
    power = max(float(np.sqrt(np.mean(noise**2))), 1e-6)
    noisy = samples + noise * np.float32(level / power * 10 ** (-snr_db / 20))
    return np.asarray(noisy / max(1.0, abs(noisy).max()), dtype=np.float32)


def measure(
    bundle: Path,
    gates: Sequence[GateSettings],
    name: str,
    snr_db: float,
    talks: Sequence[tuple[FloatArray, str]],
) -> list[dict]:
    said = [text for _, text in talks]
    without, frames = decode_talks(bundle, None, f"{name} {snr_db:g} dB", talks)
    rows = []
    for gate in gates:
        title = f"{name} {snr_db:g} dB, margin {gate.margin_db:g}"
        texts, decoded = decode_talks(bundle, gate, title, talks)
        found = compare_texts(name, "gate", said, without, texts)
        left_out = round(1 - decoded / frames, 4)
        row = {"data": name, "snr_db": snr_db, "margin_db": gate.margin_db, "words": found.words}
        row |= {"wer_without": found.wer_fp32, "wer_with": found.wer, "not_decoded": left_out}
        rows.append(row | {"difference": found.difference, "low": found.low, "high": found.high})
        print(
            f"{title}: WER {100 * found.wer_fp32:.2f} -> {100 * found.wer:.2f} % "
            f"({100 * found.low:+.2f} to {100 * found.high:+.2f}), {found.words} words, "
            f"{100 * left_out:.1f} % of the chunks not decoded",
            flush=True,
        )
    return rows


def decode_talks(
    bundle: Path, gate: GateSettings | None, title: str, talks: Sequence[tuple[FloatArray, str]]
) -> tuple[list[str], int]:
    recognizer = Recognizer(read_bundle(bundle), gate=gate)
    heard = [decode(recognizer, samples) for samples, _ in track(talks, title, len(talks))]
    return [text for text, _ in heard], sum(frames for _, frames in heard)


def decode(recognizer: Recognizer, samples: FloatArray) -> tuple[str, int]:
    """The text of all utterances, and the feature frames that were decoded."""
    stream, texts = recognizer.create_stream(), []
    for start in range(0, len(samples), SAMPLE_RATE // 10):
        text = stream.accept(samples[start : start + SAMPLE_RATE // 10])
        if recognizer.is_endpoint(stream):
            texts.append(text)
            recognizer.reset(stream)
    return " ".join([*texts, stream.finish()]), stream.features.num_read


if __name__ == "__main__":
    main()
