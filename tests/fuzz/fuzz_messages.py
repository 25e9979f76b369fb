"""Fuzzes the messages of `compress serve` with atheris: pip install atheris (in no extra), then

python tests/fuzz/fuzz_messages.py -max_total_time=60
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["compress.serve.protocol", "json"]):
    from tests.fuzz import targets
from tests.fuzz.nasty import MESSAGES
from tests.fuzz.seeds import fuzz

if __name__ == "__main__":
    fuzz(atheris, targets.read_message, MESSAGES)
