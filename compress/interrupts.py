"""Ctrl-C and SIGTERM wait until a step is whole; worker processes leave them to their parent.

Half an optimiser's update, or half a pruning, is nothing that a run could go on from.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def defer_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether to stop; a second Ctrl-C raises KeyboardInterrupt at once.

    Signals reach the main thread alone: in any other the function always says no.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts() -> None:
    """For a worker process: the terminal sends Ctrl-C to it too, and it would print a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
