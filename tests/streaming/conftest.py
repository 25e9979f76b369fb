"""Fixtures: the tiny bundle, a recogniser on it, and two seconds of sound."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

import streaming
from streaming.bundle import read_bundle
from tests.streaming.tiny_bundle import build_bundle, make_speech


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    return build_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def copied_bundle(bundle, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def recognizer(bundle):
    return streaming.open_bundle(bundle, precision="fp32")


@pytest.fixture(scope="session")
def info(bundle):
    return read_bundle(bundle)


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    return make_speech(32000)


@pytest.fixture(scope="session")
def speech_file(tmp_path_factory, speech) -> Path:
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    soundfile.write(path, speech, 16000, subtype="FLOAT")
    return path
