"""What the page is made of, what it reads of a bundle, and the server that hands it out."""

import json
import re
import shutil
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import streaming
from examples.web.serve import open_server
from streaming.bundle import write_sha256sums
from streaming.errors import BundleError
from tests.web.conftest import WEB

PAGE = WEB / "page"


def test_the_service_worker_keeps_every_file_of_the_page():
    listed = re.search(r"const FILES = \[(.*?)\];", (PAGE / "service.js").read_text(), re.DOTALL)
    names = set(re.findall(r'"([^"]+)"', listed[1]))
    inside = [path for path in PAGE.rglob("*") if path.is_file()]
    files = {path.relative_to(PAGE).as_posix() for path in inside}
    files = {name for name in files if not name.startswith(("ort/", "bundle/"))}
    assert names == files - {"service.js", "index.html"} | {"./"}


def test_one_version_of_onnxruntime_web_is_pinned():
    wanted = json.loads((WEB / "package.json").read_text())
    pins = wanted["dependencies"] | wanted["devDependencies"]
    locked = json.loads((WEB / "package-lock.json").read_text())["packages"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in pins.values())
    assert all(locked[f"node_modules/{name}"]["version"] == pin for name, pin in pins.items())
    for name in ("worker.js", "service.js"):
        found = set(re.findall(r"ort/([\d.]+)/", (PAGE / name).read_text()))
        assert found == {pins["onnxruntime-web"]}


def test_a_bundle_of_ours_is_accepted(values, bundle):
    text = (bundle / "bundle.json").read_text()
    sums = (bundle / "SHA256SUMS").read_text()
    found = values([{"call": "info", "text": text}, {"call": "sums", "text": sums}])
    assert found[1]["tokens.txt"] in sums
    assert len(found[1]) == len(sums.splitlines())


CHANGES = {
    "schema": {"schema": 2},
    "chunk": {"chunk_frames": 30},
    "no chunk": {"chunk_frames": 0},
    "blank": {"blank_id": 1},
    "target": {"target": "whisper"},
    "states": {"state_sizes": [24]},
    "too large": {"state_sizes": [24, 1 << 40]},
    "precision": {"default_precision": "int2"},
    "files": {"files": {"int8": {"encoder": "encoder.onnx"}}},
    "path": {
        "files": {"int8": {"encoder": "../e.onnx", "decoder": "d.onnx", "joiner": "j.onnx"}},
    },
    "features": {"features": {"preset": "whisper"}},
    "tensors": {"tensors": {"encoder": {}}},
    "shape": {"vocab_size": 9},
}


def test_what_streaming_refuses_the_page_refuses(answers, bundle, tmp_path):
    info = json.loads((bundle / "bundle.json").read_text())
    texts = {name: json.dumps(info | change) for name, change in CHANGES.items()}
    found = answers([{"call": "info", "text": text} for text in texts.values()])
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    for (name, text), answer in zip(texts.items(), found, strict=True):
        (folder / "bundle.json").write_text(text)
        write_sha256sums(folder)
        with pytest.raises(BundleError):
            streaming.open_bundle(folder)
        assert answer.get("kind") == "BundleError", name
        assert "\n" not in answer["error"] and answer["error"].endswith(("again", "trust")), name


def test_damaged_texts_are_refused(answers):
    calls = [{"call": "info", "text": text} for text in ("", "{", "[]", "null")]
    calls += [{"call": "sums", "text": text} for text in ("x", f"{'0' * 64}  ../../etc/passwd")]
    assert [answer["kind"] for answer in answers(calls)] == ["BundleError"] * 6


@pytest.fixture(scope="module")
def address(bundle):
    server = open_server(bundle, port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/worker.js", "text/javascript"),
        ("/manifest.webmanifest", "application/manifest+json"),
        ("/?bundle=./bundle/", "text/html"),
        ("/bundle/bundle.json", "application/json"),
    ],
)
def test_the_server_gives_files_that_a_browser_isolates(address, path, kind):
    with urllib.request.urlopen(address + path) as answer:
        assert answer.headers.get_content_type() == kind
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_the_server_gives_the_bundle_bit_for_bit(address, bundle):
    with urllib.request.urlopen(f"{address}/bundle/encoder.int8.onnx?sha256=0") as answer:
        assert answer.read() == (bundle / "encoder.int8.onnx").read_bytes()


@pytest.mark.parametrize(
    "path", ["/bundle/", "/../serve.py", "/bundle/../../serve.py", "/%2e%2e/serve.py"]
)
def test_the_server_gives_nothing_else(address, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + path)
