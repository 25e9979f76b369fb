"""examples/android/README.md names the files that a bundle has."""

import re
from pathlib import Path

from export.card_use import MODEL_TYPES
from streaming.bundle import GRAPHS, TOKENS_FILE, read_bundle

README = Path(__file__).parents[2] / "examples/android/README.md"


def test_the_snippets_name_the_files_of_a_bundle(bundle):
    info = read_bundle(bundle)
    files = info.files[info.default_precision]
    entries = re.findall(r"1000 -> \{(.*?)\n```", README.read_text(), re.DOTALL)
    assert len(entries) == 2
    for entry in entries:
        named = dict(re.findall(r'(\w+) = "\$modelDir/([^"]+)"', entry))
        assert named == {**files, "tokens": TOKENS_FILE}
    lstm, nemo = ("modelType" in entry for entry in entries)
    assert lstm and not nemo
    assert MODEL_TYPES["kotlin"].strip().rstrip(",") in entries[0]


def test_the_files_to_copy_are_those_of_a_bundle(bundle):
    copied = re.search(
        r"cp runs/NAME/bundle/\{(\S+)\}\.int8\.onnx runs/NAME/bundle/(\S+)", README.read_text()
    )
    assert copied[1].split(",") == list(GRAPHS)
    assert (bundle / copied[2]).is_file()
