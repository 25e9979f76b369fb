"""`compress listen`: text while one speaks, from a microphone or a file that plays as one."""

import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from streaming import DecodingSettings, Recognizer, open_bundle
from streaming.features import FloatArray
from streaming.microphone import open_microphone

ERASE_LINE = "\r\x1b[K"


def listen(
    bundle: Path | str,
    device: str | int | None = None,
    out: TextIO | None = None,
    precision: str | None = None,
    num_threads: int = 1,
    realtime: bool = True,
    decoding: DecodingSettings | None = None,
) -> None:
    """Shows the growing text in place and a line per utterance, until Ctrl-C or the file's end.

    device: see streaming.microphone.open_microphone. When `out` is no terminal, only whole
    utterances are written. Ctrl-C is the normal end: what was heard by then is written.
    """
    out = out or sys.stdout
    recognizer = open_bundle(bundle, precision, num_threads, decoding=decoding)
    sample_rate = recognizer.info.features.sample_rate
    show_utterances(recognizer, _announce(open_microphone(device, sample_rate, realtime)), out)


def _announce(blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
    """Says so once sound comes, not before: the device may be missing."""
    for number, block in enumerate(blocks):
        if number == 0:
            print("listening, Ctrl-C ends", file=sys.stderr)
        yield block


def show_utterances(recognizer: Recognizer, blocks: Iterable[FloatArray], out: TextIO) -> None:
    """Decodes blocks of mono float32 at the model's rate; writes each utterance as one line."""
    stream = recognizer.create_stream()
    partial = ""
    try:
        for samples in blocks:
            text = stream.accept(samples)
            if text != partial:
                partial = text
                _redraw(out, partial)
            if recognizer.is_endpoint(stream):
                _write_line(out, partial)
                recognizer.reset(stream)
                partial = ""
    except KeyboardInterrupt:
        pass
    _write_line(out, stream.finish())


def _redraw(out: TextIO, text: str) -> None:
    """The end of the text in place: a line that wraps could not be erased."""
    if out.isatty():
        width = shutil.get_terminal_size().columns - 1
        out.write(ERASE_LINE + text[-width:])
        out.flush()


def _write_line(out: TextIO, text: str) -> None:
    if text:
        out.write((ERASE_LINE if out.isatty() else "") + text + "\n")
        out.flush()
