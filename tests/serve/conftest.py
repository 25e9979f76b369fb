"""Fixtures: the tiny bundle, recognisers on it, and a server for the tests that break nothing."""

import pytest

import streaming
from tests.serve.clients import running
from tests.streaming.tiny_bundle import build_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return build_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def recognizer(bundle):
    return streaming.open_bundle(bundle, precision="fp32")


@pytest.fixture(scope="module")
def server(recognizer):
    with running(recognizer) as server:
        yield server
