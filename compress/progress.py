"""One progress bar for the whole project: what is done, how much is left, how long it takes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)
Item = TypeVar("Item")


def progress_bar() -> Progress:
    """A bar on stderr with time left; `fields[note]` is free text behind it."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        TextColumn("{task.fields[note]}"),
        console=console,
        refresh_per_second=4 if sys.stderr.isatty() else 0.2,
    )


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yield the items while a bar shows them going by."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=total, note="")
        for item in items:
            yield item
            bar.advance(task)


def say(message: str) -> None:
    """One line for the user, on stderr, so that stdout stays for results."""
    console.print(message, highlight=False, soft_wrap=True)
