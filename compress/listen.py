"""`compress listen`: text while one speaks, from a microphone or a file that plays as one."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from compress.live import LiveLine
from compress.progress import say
from streaming import DecodingSettings, GateSettings, Recognizer, open_bundle
from streaming.features import FloatArray
from streaming.microphone import Loss, open_microphone


def listen(
    bundle: Path | str,
    device: str | int | None = None,
    out: TextIO | None = None,
    precision: str | None = None,
    num_threads: int = 1,
    realtime: bool = True,
    decoding: DecodingSettings | None = None,
    gate: GateSettings | None = None,
) -> None:
    """Shows the growing text in place and a line per utterance, until Ctrl-C or the file's end.

    device: see streaming.microphone.open_microphone. When `out` is no terminal, only whole
    utterances are written. Ctrl-C is the normal end: what was heard by then is written.
    """
    recognizer = open_bundle(bundle, precision, num_threads, decoding, gate)
    loss = Loss()
    rate = recognizer.info.features.sample_rate
    blocks = open_microphone(device, rate, realtime, loss)
    try:
        show_utterances(recognizer, _announce(blocks), LiveLine(out or sys.stdout, loss))
    finally:
        if loss.times:
            say(
                f"the microphone lost sound {loss.times} times: end other programs, or take a "
                "smaller bundle"
            )


def _announce(blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
    """Says so once sound comes, not before: the device may be missing."""
    for number, block in enumerate(blocks):
        if number == 0:
            say("listening, Ctrl-C ends")
        yield block


def show_utterances(recognizer: Recognizer, blocks: Iterable[FloatArray], line: LiveLine) -> None:
    """Decodes blocks of mono float32 at the model's rate; writes each utterance as one line.

    However the blocks end, what was heard by then is written: also before an AudioError of theirs.
    """
    stream = recognizer.create_stream()
    try:
        for samples in blocks:
            text = stream.accept(samples)
            line.show(text, samples)
            if recognizer.is_endpoint(stream):
                line.end(text)
                recognizer.reset(stream)
    except KeyboardInterrupt:
        pass
    finally:
        line.clear()
        line.end(stream.finish())
