"""Fixtures: a tokenizer's file, and a text of the built-in grammar."""

from __future__ import annotations

import pytest

from compress.data import grammar
from compress.data.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "bpe.model"
    path.write_bytes(train_tokenizer(grammar.sentences(2000, 0), 96).model)
    return path


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "texts" / "corpus.txt"
    path.parent.mkdir()
    path.write_text("\n".join(grammar.sentences(400, 1)))
    return path
