"""What a form's file is told: which weights to take, and what is known of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

# layer -> the smallest and the largest value that its input is expected to have.
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Job:
    """weights: initialisers that get the form -> their layers.

    ranges: of the layers' inputs; only static reads them. per_channel: a scale for each output row
    instead of each matrix. flat: weights that multiply inputs (N, K) and none of three axes.
    """

    weights: Mapping[str, str]
    ranges: Ranges
    per_channel: bool = True
    flat: Collection[str] = ()
