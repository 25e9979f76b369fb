"""Write the tree of README.md: each Python file with the first line of its docstring.

    make tree

tests/test_readme.py fails when a file is missing from the tree.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("compress", "export", "streaming")
BESIDE = ("examples", "bench", "tests/reference")
START, END = "<!-- tree -->", "<!-- end of tree -->"


def list_files() -> list[Path]:
    """The modules in reading order: a folder's own files, then its folders."""
    paths = [path for name in (*PACKAGES, *BESIDE) for path in (ROOT / name).rglob("*.py")]
    paths = [path for path in paths if path.read_text().strip()]
    return sorted(paths, key=lambda path: (folder_order(path), path.name != "__init__.py", path))


def folder_order(path: Path) -> tuple[int, str]:
    folder = path.parent.relative_to(ROOT).as_posix()
    top = next(name for name in (*PACKAGES, *BESIDE) if folder.startswith(name))
    return (*PACKAGES, *BESIDE).index(top), folder


def purpose(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return docstring.partition("\n")[0].rstrip(".")


def draw_tree() -> str:
    lines: list[str] = []
    folder = None
    for path in list_files():
        if path.parent != folder:
            folder = path.parent
            own = purpose(path) if path.name == "__init__.py" else ""
            lines += ["", f"{folder.relative_to(ROOT).as_posix() + '/':26s}{own}".rstrip()]
        if path.name != "__init__.py":
            lines.append(f"    {path.name:22s}{purpose(path)}")
    return "\n".join(["## The tree", "", "```", *lines[1:], "```"])


def main() -> None:
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(START)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{START}\n{draw_tree()}\n{END}{after}")


if __name__ == "__main__":
    main()
