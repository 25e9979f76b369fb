"""`compress run --quantize qat` and what follows, the whole way on a tiny model."""

from __future__ import annotations

import json

import pytest

from compress import trainer
from compress.cli import run_app
from compress.checkpoint import load_model
from streaming.bundle import read_bundle
from tests.test_pipeline import often


def test_a_run_with_qat(call, tmp_path, capsys):
    assert call("--out", "here", "--quantize", "qat") == 0
    info = read_bundle(tmp_path / "here" / "bundle")
    assert info.default_precision == "qat"
