"""Trainings of a benchmark in processes of their own."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from compress.interrupts import ignore_interrupts
from compress.progress import track


def side_by_side(title: str, workers: int, tasks: list[tuple]) -> list[Any]:
    """Run (function, *arguments) in processes of their own; results in the order they end."""
    if not tasks:
        return []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, ignore_interrupts) as pool:
        futures = [pool.submit(*task) for task in tasks]
        return [future.result() for future in track(as_completed(futures), title, len(futures))]
