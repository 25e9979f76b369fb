"""Subtitles from token timestamps: words, then cues, as SubRip (srt) or WebVTT (vtt)."""

import itertools
import math
from dataclasses import dataclass
from typing import TextIO

from streaming import Result
from streaming.tokens import WORD_START, pieces_to_text

MAX_CUE_SECONDS = 6.0
MAX_CUE_CHARACTERS = 84  # two lines of 42, the usual limit on a screen
MAX_GAP_SECONDS = 1.0
LAST_TOKEN_SECONDS = 0.4  # a token's timestamp is where it was emitted; its sound goes on a little


@dataclass(frozen=True)
class Cue:
    """A line of text from start to end, in seconds; confidence is P of its pieces, in [0, 1]."""

    start: float
    end: float
    text: str
    confidence: float = 1.0


def build_cues(result: Result) -> list[Cue]:
    """Groups words into cues; a gap, the length or the duration begins a new one."""
    groups: list[list[Cue]] = []
    for word in build_words(result):
        if groups and _fits(groups[-1], word):
            groups[-1].append(word)
        else:
            groups.append([word])
    return [Cue(g[0].start, g[-1].end, " ".join(word.text for word in g)) for g in groups]


def _fits(cue: list[Cue], word: Cue) -> bool:
    characters = sum(len(w.text) + 1 for w in cue) + len(word.text)
    return (
        word.start - cue[-1].end <= MAX_GAP_SECONDS
        and word.end - cue[0].start <= MAX_CUE_SECONDS
        and characters <= MAX_CUE_CHARACTERS
    )


def build_words(result: Result) -> list[Cue]:
    """Words with times; a word ends after its last token, at the latest where the next begins."""
    starts = [n for n, token in enumerate(result.tokens) if n == 0 or token.startswith(WORD_START)]
    words = []
    for start, stop in itertools.pairwise([*starts, len(result.tokens)]):
        end = result.timestamps[stop - 1] + LAST_TOKEN_SECONDS
        if stop < len(result.tokens):
            end = min(end, result.timestamps[stop])
        text = pieces_to_text(result.tokens[start:stop])
        if text:
            words.append(Cue(result.timestamps[start], end, text, _confidence(result, start, stop)))
    return words


def _confidence(result: Result, start: int, stop: int) -> float:
    """The geometric mean of the pieces' probabilities; 1 when they are not known."""
    log_probs = result.log_probs[start:stop]
    return math.exp(sum(log_probs) / len(log_probs)) if log_probs else 1.0


def format_time(seconds: float, decimal_mark: str) -> str:
    """3661.5 -> 01:01:01,500 (srt) or 01:01:01.500 (vtt)."""
    total_ms = round(seconds * 1000)
    minutes, ms = divmod(total_ms, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{ms // 1000:02}{decimal_mark}{ms % 1000:03}"


def write_srt(out: TextIO, result: Result) -> None:
    for number, cue in enumerate(build_cues(result), 1):
        times = f"{format_time(cue.start, ',')} --> {format_time(cue.end, ',')}"
        out.write(f"{number}\n{times}\n{cue.text}\n\n")


def write_vtt(out: TextIO, result: Result) -> None:
    out.write("WEBVTT\n\n")
    for cue in build_cues(result):
        times = f"{format_time(cue.start, '.')} --> {format_time(cue.end, '.')}"
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        out.write(f"{times}\n{text}\n\n")
