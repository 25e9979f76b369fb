"""Programs against the C and C++ API of sherpa-onnx, whose wheel brings headers and libraries."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest


def compile_client(source: Path, program: Path) -> Path:
    """Compiles a .c or .cc file; skips the test where that cannot be done, saying why."""
    spec = importlib.util.find_spec("sherpa_onnx")
    if spec is None or spec.origin is None:
        pytest.skip("sherpa-onnx is in the extra [dev]")
    package = Path(spec.origin).parent
    if not list((package / "lib").glob("libsherpa-onnx-cxx-api.*")):
        pytest.skip("this platform's wheel of sherpa-onnx has no C library")
    plain = source.suffix == ".c"
    compiler = shutil.which("cc" if plain else "c++")
    if compiler is None:
        pytest.skip("no C compiler")
    library = "sherpa-onnx-c-api" if plain else "sherpa-onnx-cxx-api"
    paths = [f"-I{package / 'include'}", f"-L{package / 'lib'}", f"-Wl,-rpath,{package / 'lib'}"]
    # The API's own library is one of them; the other is found beside it when the program starts.
    # Built for manylinux, the wheel has std::string as it was before C++11.
    dialect = [] if plain else ["-std=c++17", "-D_GLIBCXX_USE_CXX11_ABI=0"]
    flags = [*dialect, *paths, "-Wl,--allow-shlib-undefined"]
    command = [compiler, str(source), "-o", str(program), *flags, f"-l{library}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program
