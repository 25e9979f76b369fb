"""Settings of the whole suite, and the fixtures of tests that run whole commands."""

from __future__ import annotations

import os

# Tiny models run fastest on one thread, and two cores are shared by whatever else runs.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import yaml

from compress.cli import run_app


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Synthetic speech and features of all whole runs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """The folder of a tiny untrained teacher."""
    from tests.tiny_teacher import save_teacher

    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def recipe(tmp_path):
    """A recipe file for `compress run` that takes seconds."""
    from tests.tiny_teacher import RECIPE

    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


@pytest.fixture
def call(tmp_path, teacher, recipe, cache, monkeypatch):
    """Run `compress run` in a folder of its own on the tiny settings; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))

    def run(*arguments):
        options = ["--recipe", str(recipe), "--teacher", str(teacher), *arguments]
        return run_app(["run", "--sparsity", "0.5", *options])

    return run
