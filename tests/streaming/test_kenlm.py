"""KenLM's own answers against our reader's, where the library kenlm is installed."""

import os
from pathlib import Path

import numpy as np
import pytest

from streaming import InputError
from streaming.search import kenlm as ours
from streaming.search.arpa import read_arpa
from streaming.search.ngram import BackoffTables, NgramLm
from streaming.search.settings import open_lm
from tests.streaming.test_arpa import SYMBOLS, TEXT

CONTEXTS = [(), (0,), (0, 2), (2,), (3,), (2, 3), (3, 4), (4,)]


def test_the_library_is_asked_for_by_name(tmp_path, monkeypatch):
    path = tmp_path / "lm.bin"
    path.write_bytes(ours.MAGIC + b" format version 5\n\0")
    monkeypatch.setitem(__import__("sys").modules, "kenlm", None)
    with pytest.raises(InputError, match=r"pip install kenlm, or give the \.arpa"):
        open_lm(path, SYMBOLS, 0)


def test_a_damaged_binary_is_refused(tmp_path):
    pytest.importorskip("kenlm")
    path = tmp_path / "lm.bin"
    path.write_bytes(ours.MAGIC + b" format version 5\n\0")
    with pytest.raises(InputError, match="kenlm cannot load it"):
        open_lm(path, SYMBOLS, 0)


def test_over_other_tokens(tmp_path):
    pytest.importorskip("kenlm")
    path = tmp_path / "lm.arpa"
    path.write_text(TEXT, encoding="utf-8")
    with pytest.raises(InputError, match="none of the bundle's tokens"):
        ours.KenlmEvents(path, ["<blk>", "<unk>", " x"], 0)


def compare(path: Path, events):
    lm = NgramLm(events, SYMBOLS, 0)
    theirs = NgramLm(ours.KenlmEvents(path, SYMBOLS, 0), SYMBOLS, 0)
    assert theirs.order == lm.order
    for context in CONTEXTS:
        context = context[-(lm.order - 1) :]
        np.testing.assert_allclose(
            theirs.next_labels(context)[2:], lm.next_labels(context)[2:], atol=1e-4
        )


def test_the_library_says_the_same_of_an_arpa(tmp_path):
    pytest.importorskip("kenlm")
    path = tmp_path / "lm.arpa"
    path.write_text(TEXT, encoding="utf-8")
    compare(path, BackoffTables(read_arpa(path, SYMBOLS, 0), len(SYMBOLS)))


@pytest.mark.slow
@pytest.mark.skipif("BUILD_BINARY" not in os.environ, reason="names KenLM's build_binary")
def test_a_binary_is_told_by_its_first_bytes(tmp_path):
    import subprocess

    pytest.importorskip("kenlm")
    (tmp_path / "lm.arpa").write_text(TEXT, encoding="utf-8")
    path = tmp_path / "lm.bin"
    command = [os.environ["BUILD_BINARY"], str(tmp_path / "lm.arpa"), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    assert ours.is_kenlm(path)
    assert isinstance(open_lm(path, SYMBOLS, 0), NgramLm)
    compare(path, BackoffTables(read_arpa(tmp_path / "lm.arpa", SYMBOLS, 0), len(SYMBOLS)))
