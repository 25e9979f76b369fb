"""Settings of the whole suite."""

from __future__ import annotations

import os

# Tiny models run fastest on one thread, and two cores are shared by whatever else runs.
os.environ.setdefault("OMP_NUM_THREADS", "1")
