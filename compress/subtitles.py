"""Subtitles from token timestamps: words, then cues, as SubRip (srt) or WebVTT (vtt)."""

from dataclasses import dataclass
from typing import TextIO

from streaming import Result, Word

MAX_CUE_SECONDS = 6.0
MAX_CUE_CHARACTERS = 84  # two lines of 42, the usual limit on a screen
MAX_GAP_SECONDS = 1.0


@dataclass(frozen=True)
class Cue:
    """A line of text from start to end, in seconds."""

    start: float
    end: float
    text: str


def build_cues(result: Result) -> list[Cue]:
    """Groups words into cues; a gap, the length or the duration begins a new one."""
    groups: list[list[Word]] = []
    for word in result.words:
        if groups and _fits(groups[-1], word):
            groups[-1].append(word)
        else:
            groups.append([word])
    return [
        Cue(group[0].start_seconds, group[-1].end_seconds, " ".join(word.text for word in group))
        for group in groups
    ]


def _fits(cue: list[Word], word: Word) -> bool:
    characters = sum(len(w.text) + 1 for w in cue) + len(word.text)
    return (
        word.start_seconds - cue[-1].end_seconds <= MAX_GAP_SECONDS
        and word.end_seconds - cue[0].start_seconds <= MAX_CUE_SECONDS
        and characters <= MAX_CUE_CHARACTERS
    )


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
