"""Fuzzes the reading of sound files with atheris: pip install atheris (in no extra), then

    python tests/fuzz/fuzz_wav.py -max_total_time=60

What it finds it writes as crash-HASH in this folder; the bytes belong into tests/fuzz/nasty.py.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["streaming", "soundfile"]):
    from tests.fuzz import targets
from tests.fuzz.nasty import nasty_sounds
from tests.fuzz.seeds import fuzz

if __name__ == "__main__":
    fuzz(atheris, targets.read_sound, [data for _, data in nasty_sounds()])
