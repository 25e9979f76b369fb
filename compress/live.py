"""The last line of a terminal that listens: how loud it is, what is lost, the end of the text."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

import numpy as np
from rich.cells import cell_len

from streaming.features import FloatArray
from streaming.microphone import Loss

ERASE_REST = "\x1b[K"
METER_CELLS = 10
QUIETEST_DB = -60.0
METER_FROM_COLUMNS = 40  # narrower terminals have room for the text alone
REDRAW_SECONDS = 0.1  # of a meter that moves while no word comes


class LiveLine:
    """One line that redraws in place on a terminal; nothing of it is written to a file or a pipe.

    Each redraw is one write that goes over the old line and erases only what is left of it, so
    nothing flickers. The line never wraps: a wrapped one could not be drawn over.
    """

    def __init__(
        self, out: TextIO, loss: Loss, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.out = out
        self._loss = loss
        self._clock = clock
        self._is_terminal = out.isatty()
        self._text = ""
        self._drawn = -1.0

    def show(self, text: str, samples: FloatArray) -> None:
        """The text so far, and the level of the newest sound."""
        if not self._is_terminal:
            return
        now = self._clock()
        if text == self._text and now - self._drawn < REDRAW_SECONDS:
            return
        self._text, self._drawn = text, now
        columns = shutil.get_terminal_size().columns - 1
        status = self._describe(samples) if columns + 1 >= METER_FROM_COLUMNS else ""
        line = status + fit_end(text, columns - cell_len(status))
        self._write(f"\r{line}{ERASE_REST}")

    def _describe(self, samples: FloatArray) -> str:
        lost = f"lost {self._loss.times}x " if self._loss.times else ""
        return f"{draw_meter(samples)} {lost}"

    def end(self, text: str) -> None:
        """An utterance is over: its text stays, if it has any."""
        self._text = ""
        if text:
            self._write(f"\r{text}{ERASE_REST}\n" if self._is_terminal else f"{text}\n")

    def clear(self) -> None:
        """Leaves an empty line to whoever writes next."""
        if self._is_terminal:
            self._write(f"\r{ERASE_REST}")

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


def fit_end(text: str, cells: int) -> str:
    """The end of the text that takes at most so many cells; 漢 takes two, an accent none."""
    taken = 0
    for index in range(len(text) - 1, -1, -1):
        taken += cell_len(text[index])
        if taken > cells:
            return text[index + 1 :]
    return text


def draw_meter(samples: FloatArray) -> str:
    """The peak of (num_samples,) from -60 dB to full scale, as in "####------"."""
    peak = float(np.abs(samples).max(initial=1e-9))
    filled = round(METER_CELLS * (1 - 20 * np.log10(peak) / QUIETEST_DB))
    return ("#" * filled)[:METER_CELLS].ljust(METER_CELLS, "-")
