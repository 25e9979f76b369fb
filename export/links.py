"""Bundles side by side that hold the same file twice: one file on the disk, under both names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.card import CARD_FILE
from streaming.bundle import INFO_FILE, SUMS_FILE, read_sums

OWN_FILES = {INFO_FILE, CARD_FILE, SUMS_FILE}  # rewritten in place when a bundle was measured


def link_same_files(folders: Sequence[Path]) -> None:
    """Hard links between finished bundles, by the hashes of their SHA256SUMS.

    Each bundle stays whole: a copy of one is as large as before. Without hard links, as on FAT, the
    copies stay.
    """
    first: dict[str, Path] = {}
    for folder in folders:
        for name, digest in read_sums(folder).items():
            if name not in OWN_FILES and first.setdefault(digest, folder / name) != folder / name:
                _replace_by_link(folder / name, first[digest])


def _replace_by_link(path: Path, source: Path) -> None:
    growing = path.with_name(f".{path.name}.part")
    try:
        growing.hardlink_to(source)
        growing.replace(path)
    except OSError:
        pass  # the file system has none, or the file has too many already
    finally:
        growing.unlink(missing_ok=True)
