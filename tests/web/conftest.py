"""Fixtures of examples/web: its JavaScript in node, and what a browser needs."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.streaming.tiny_bundle import build_bundle

HERE = Path(__file__).parent
WEB = HERE.parents[1] / "examples/web"


@pytest.fixture(scope="session")
def node() -> str:
    path = shutil.which("node")
    if path is None:
        pytest.skip("no node on this machine: apt-get install nodejs")
    return path


@pytest.fixture(scope="session")
def runtime() -> Path:
    """The folder of the installed onnxruntime-web."""
    folder = WEB / "node_modules/onnxruntime-web"
    if not folder.is_dir():
        pytest.skip("onnxruntime-web is not installed: run npm ci in examples/web")
    return folder


@pytest.fixture(scope="session")
def answers(node):
    """A function: calls of calls.mjs -> answers, {"value": ..} or {"error": .., "kind": ..}."""

    def run(calls: list[dict]) -> list[dict]:
        done = subprocess.run(
            [node, HERE / "calls.mjs"],
            input=json.dumps(calls, allow_nan=False),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def values(answers):
    """The same where every call must succeed: calls -> values."""

    def run(calls: list[dict]) -> list:
        found = answers(calls)
        assert not [answer for answer in found if "error" in answer]
        return [answer["value"] for answer in found]

    return run


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    return build_bundle(tmp_path_factory.mktemp("web") / "bundle")
