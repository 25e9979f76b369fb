"""Cuts of a signal for hypothesis, empty pieces included."""

import numpy as np
from hypothesis import strategies as st


def cuts(num_samples: int, max_cuts: int = 12):
    """Sorted cut points; equal ones make empty pieces."""
    return st.lists(st.integers(0, num_samples), max_size=max_cuts).map(sorted)


def cut(samples: np.ndarray, points: list[int]) -> list[np.ndarray]:
    return np.split(samples, points)
