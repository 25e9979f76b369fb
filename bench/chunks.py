"""What a chunk size costs: word errors, bytes and time of every bundle of several students.

    compress export runs/one/student --chunk-ms 80,160,320,640 --out runs/one-chunks
    python bench/chunks.py runs/one-chunks runs/four/bundles --data FOLDER --data FOLDER

Each argument is a folder of bundles. A row is a bundle: what it hears of all test splits together,
and the points of WER to the first folder's bundle of that chunk, with the 95 % interval of a paired
bootstrap over utterances. Real-time factors are of one run in which all bundles take turns.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from compress.bundle import graph_bytes
from compress.data.sets import cuts_to_judge, read_utterances
from compress.difference import compare_texts, decode
from compress.evaluate import word_error_rate
from compress.measure import Utterance
from compress.trial import measure_rtf
from export.pack_several import list_bundles, pack_bundles
from streaming.bundle import BundleInfo, read_bundle

TIMED_UTTERANCES = 8
PASSES = 5
TITLES = ("student", "chunk", "WER", "to the first student", "real-time factor", "bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="folders of bundles")
    parser.add_argument("--data", action="append", required=True, help="as of compress eval")
    arguments = parser.parse_args()
    sets = {name: read_utterances(cuts) for name, cuts in cuts_to_judge(arguments.data, 0).items()}
    utterances = [utterance for some in sets.values() for utterance in some]
    bundles = {folder: read_by_chunk(folder) for folder in arguments.folders}
    print_rows(bundles, utterances)
    for folder, infos in bundles.items():
        alone = next(iter(infos.values())).folder
        print(f"{folder}: {packed_bytes(folder)} bytes packed, one alone {packed_bytes(alone)}")


def read_by_chunk(folder: Path) -> dict[int, BundleInfo]:
    infos = [read_bundle(bundle) for bundle in list_bundles(folder)]
    return {info.chunk_frames: info for info in sorted(infos, key=lambda i: i.chunk_frames)}


def print_rows(bundles: dict[Path, dict[int, BundleInfo]], utterances: list[Utterance]) -> None:
    said = [text for _, _, text in utterances]
    step = max(1, len(utterances) // TIMED_UTTERANCES)
    timed = [samples for _, samples, _ in utterances[::step]]
    flat = {f"{f}/{c}": i.folder for f, infos in bundles.items() for c, i in infos.items()}
    factors = measure_rtf(flat, timed, PASSES)
    first: dict[int, list[str]] = {}
    print(f"| {' | '.join(TITLES)} |\n{'|---' * len(TITLES)}|")
    for folder, infos in bundles.items():
        for chunk, info in infos.items():
            heard = decode(info, info.default_precision, utterances)
            base = first.setdefault(chunk, heard)
            gap = compare_texts("", info.default_precision, said, base, heard)
            row = [
                str(folder),
                f"{10 * chunk} ms",
                str(word_error_rate(said, heard)),
                "" if base is heard else show_gap(gap.difference, gap.low, gap.high),
                f"{factors[f'{folder}/{chunk}']:.4f}",
                f"{graph_bytes(info.folder, info):,}",
            ]
            print(f"| {' | '.join(row)} |", flush=True)


def show_gap(*values: float) -> str:
    gap, low, high = (f"{value:+.2f}" for value in 100 * np.array(values))
    return f"{gap} ({low} to {high})"


def packed_bytes(folder: Path) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        return pack_bundles(folder, Path(scratch) / "some.pack")


if __name__ == "__main__":
    main()
