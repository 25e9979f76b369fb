"""`compress bench`: how fast a bundle is on this machine, and how late, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.data.cuts import read_samples
from compress.data.sets import cuts_to_judge, spread
from compress.data.store import text_of
from compress.latency import SpokenWord, measure_delays
from compress.measure import decode_bundle
from streaming import Recognizer, open_bundle

if TYPE_CHECKING:
    from lhotse.cut import Cut

MEANINGS = {
    "chunk": "work for one chunk",
    "first_text": "start of the first word -> first text",
    "emission": "end of a word -> its last token, without waiting for a chunk",
    "word": "end of a word -> on the screen",
    "last_word": "end of the last word -> whole text, while listening on",
    "finish": "finish() -> whole text",
    "tail": "silence that the last word needs",
}


def bench_bundle(
    bundle: Path | str,
    data: Sequence[str] = (),
    split: str = "test",
    num: int = 100,
    precision: str | None = None,
    num_threads: int = 1,
) -> dict[str, Any]:
    """{"bundle", "precision", "threads", "sets": {name: figures}}; delays need words with times.

    data: packs, synthetic speech without any; at most `num` utterances of each.
    """
    recognizer = open_bundle(bundle, precision, num_threads)
    precision = recognizer.session.precision
    sets = cuts_to_judge(data, num, split=split)
    found = {
        name: bench_set(recognizer, bundle, spread(cuts, num), num_threads)
        for name, cuts in sets.items()
    }
    return {"bundle": str(bundle), "precision": precision, "threads": num_threads, "sets": found}


def bench_set(
    recognizer: Recognizer, bundle: Path | str, cuts: Sequence[Cut], num_threads: int
) -> dict[str, Any]:
    utterances = [(cut.id, read_samples(cut), text_of(cut)) for cut in cuts]
    decoding = decode_bundle(bundle, utterances, recognizer.session.precision, num_threads)
    figures: dict[str, Any] = {
        "seconds_audio": round(decoding.seconds_audio, 1),
        "rtf": round(decoding.rtf, 5),
        "load_ms": round(decoding.load_ms, 1),
        "peak_rss_mb": round(decoding.peak_rss_mb, 1),
        "tail_ms_of_bundle": recognizer.info.tail_frames * recognizer.info.features.frame_shift_ms,
    }
    timed = [(u[1], words_of(cut)) for cut, u in zip(cuts, utterances, strict=True)]
    if any(words for _, words in timed):
        figures["delays_ms"] = measure_delays(recognizer, timed).summary()
    return figures


def words_of(cut: Cut) -> list[SpokenWord]:
    """The words of a cut with their times; none when it has no alignment."""
    alignment = cut.supervisions[0].alignment or {}
    return [SpokenWord(item.symbol, item.start, item.end) for item in alignment.get("word", [])]


def to_lines(found: dict[str, Any]) -> list[str]:
    """What the command prints."""
    lines = [f"{found['bundle']}, {found['precision']}, {found['threads']} thread(s)"]
    for name, figures in found["sets"].items():
        lines += [
            f"{name}: {figures['seconds_audio']} s of sound, real-time factor {figures['rtf']:.4f} "
            f"({1 / figures['rtf']:.0f} times as fast), loads in {figures['load_ms']:.0f} ms, "
            f"at most {figures['peak_rss_mb']:.0f} MB"
        ]
        lines += delay_lines(figures)
    return lines


def delay_lines(figures: dict[str, Any]) -> list[str]:
    delays = figures.get("delays_ms")
    if delays is None:
        return ["  no delays: the data has no times of words (a Lhotse word alignment)"]
    lines = [f"  {'ms':10} {'p50':>8} {'p95':>8} {'p99':>8} {'max':>8}"]
    for name, meaning in MEANINGS.items():
        values = delays[name]
        if values["cases"]:
            cells = " ".join(f"{values[key]:8.1f}" for key in ("p50", "p95", "p99", "max"))
            lines.append(f"  {name:10} {cells}  {meaning}")
    missed, words = delays["num_missed"], delays["num_words"]
    lines.append(f"  {missed} of {words} words were not heard right and have no delay")
    needed, given = delays["tail"].get("max", 0.0), figures["tail_ms_of_bundle"]
    verdict = "enough" if needed <= given else "NOT ENOUGH: last words are lost, export it again"
    lines.append(
        f"  finish() adds {given:.0f} ms of silence; {needed:.0f} ms were needed: {verdict}"
    )
    return lines
