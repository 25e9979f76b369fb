"""Whose folder it is: a free one is taken, any other is left as it was."""

from __future__ import annotations

import pytest

from compress.claim import claim_folder
from streaming.errors import InputError

ASKED = {"teacher": "t", "sparsity": 0.9, "recipe": {"seed": 0, "words_range": [2, 6]}}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path):
    claim_folder(ASKED, tmp_path / "run", resume=False)
    return tmp_path / "run"


def test_a_new_or_empty_folder_is_taken(tmp_path):
    for resume in (False, True):
        (tmp_path / str(resume)).mkdir()
        claim_folder(ASKED, tmp_path / str(resume), resume)
        claim_folder(ASKED, tmp_path / "deep" / str(resume), resume)
        assert list(contents(tmp_path / str(resume))) == ["config.yaml"]


def test_ones_own_is_resumed(folder):
    before = contents(folder)
    claim_folder(ASKED, folder, resume=True)
    assert contents(folder) == before


def refuse(asked, folder, resume, message):
    before = contents(folder)
    with pytest.raises(InputError, match=message):
        claim_folder(asked, folder, resume)
    assert contents(folder) == before


def test_a_run_without_resume(folder):
    refuse(ASKED, folder, False, "holds a run: add --resume")


def test_a_run_of_other_settings(folder):
    other = {**ASKED, "recipe": {"seed": 1, "words_range": [2, 6]}}
    refuse(other, folder, True, r"was made with recipe\.seed 0, now it is 1: choose another --out")
    refuse({**ASKED, "noise": "n"}, folder, True, "was made with noise None, now it is 'n'")


@pytest.mark.parametrize("resume", [False, True])
def test_other_files(tmp_path, resume):
    (tmp_path / "thesis.tex").write_text("years of work")
    refuse(ASKED, tmp_path, resume, "holds other files: choose another --out")


@pytest.mark.parametrize("content", ["- a list", "{", "just words"])
def test_a_config_of_something_else(tmp_path, content):
    (tmp_path / "config.yaml").write_text(content)
    refuse(ASKED, tmp_path, True, r"config\.yaml is not of a run of this project")


def test_a_file_in_its_place(tmp_path):
    (tmp_path / "run").write_text("not a folder")
    for place in (tmp_path / "run", tmp_path / "run" / "deeper"):
        with pytest.raises(InputError, match="choose another"):
            claim_folder(ASKED, place, resume=False)
    assert (tmp_path / "run").read_text() == "not a folder"
