"""The README names every file of the packages, and what it links to is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_file_is_in_the_tree():
    tree = README.partition("<!-- tree -->")[2].partition("<!-- end of tree -->")[0]
    sections = {block.split()[0]: block for block in tree.split("```")[1].strip().split("\n\n")}
    for package in ("compress", "export", "streaming"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "__init__.py":
                folder = path.parent.relative_to(ROOT).as_posix() + "/"
                found = f"    {path.name} " in sections.get(folder, "")
                assert found, f"{folder}{path.name} is not in README.md: run `make tree`"


def test_every_file_has_a_purpose():
    tree = README.partition("<!-- tree -->")[2].partition("<!-- end of tree -->")[0]
    assert not re.findall(r"^    \S+\.py *$", tree, flags=re.MULTILINE)


def test_links_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), f"README.md links to {target}"
