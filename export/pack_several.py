"""Several bundles as one file to download: a pack (packfile.py) that holds what they share once.

    bundles.json      {"80ms": {"tokens.txt": "0-tokens.txt", ...}, "160ms": {...}, ...}
    0-encoder.onnx    files of the first bundle, then those of the second that differ, ...

Encoders of two chunk sizes differ in a few constants; their weights are the same bytes, which zstd
finds again: four bundles of a student of 0.55 M take 625,993 bytes, one 624,614.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.links import link_same_files
from export.pack import (
    check_new,
    collect_files,
    pack_bundle,
    read_files,
    write_files,
    write_pack,
    writing,
)
from export.packfile import MAX_BYTES, MAX_FILES, NAME, check
from export.whole_folder import check_free, whole_folder
from streaming.bundle import INFO_FILE, BundleInfo, read_bundle

INDEX_FILE = "bundles.json"
Files = dict[str, bytes]


def list_bundles(folder: Path) -> list[Path]:
    """The bundles in a folder that holds nothing else; none otherwise."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return inside if all((path / INFO_FILE).is_file() for path in inside) else []


def pack_bundles(folder: Path | str, file: Path | str) -> int:
    """Writes one bundle, or a folder of nothing but bundles, as `file`; returns its bytes.

    Raises as pack_bundle does.
    """
    bundles = list_bundles(Path(folder))
    if not bundles:
        return pack_bundle(folder, file)
    check_new(Path(file))
    files = {path.name: collect_files(path) for path in bundles}
    try:
        joined = join_bundles(files)
    except ExportError as error:
        raise ExportError(f"{folder}: {error}") from None
    return write_pack(joined, Path(file), folder)


def join_bundles(bundles: Mapping[str, Files]) -> Files:
    """{"a": {"x": b"1"}, "b": {"x": b"1", "y": b"2"}} gives 0-x, 1-y and the index."""
    stored: dict[bytes, str] = {}
    index: dict[str, dict[str, str]] = {}
    for number, (folder, files) in enumerate(bundles.items()):
        index[folder] = {n: stored.setdefault(data, f"{number}-{n}") for n, data in files.items()}
    joined = {INDEX_FILE: json.dumps(index, separators=(",", ":")).encode()}
    joined |= {name: data for data, name in stored.items()}
    split_bundles(joined)  # refuses what could not be unpacked
    return joined


def unpack_bundles(file: Path | str, folder: Path | str) -> list[BundleInfo]:
    """Writes what is in `file`, one bundle as `folder` or several inside it, whole or not at all.

    Raises ExportError: `folder` exists, `file` is no pack, is damaged or holds no bundle.
    """
    file, folder = Path(file), Path(folder)
    check_free(folder)
    files = read_files(file)
    try:
        bundles = split_bundles(files) if INDEX_FILE in files else {"": files}
    except ExportError as error:
        raise ExportError(f"{file}: {error}") from None
    with writing(folder), whole_folder(folder) as part:
        for name, content in bundles.items():
            (part / name).mkdir(exist_ok=True)
            write_files(content, part / name, file)
        link_same_files([part / name for name in bundles])
    return [read_bundle(folder / name) for name in bundles]


def split_bundles(files: Mapping[str, bytes]) -> dict[str, Files]:
    """folder -> its files. Raises ExportError for an index that a pack of ours has not.

    A few stored bytes may be named many times, so the sum of all files is checked, too.
    """
    try:
        index: Any = json.loads(files[INDEX_FILE])
    except (ValueError, RecursionError):
        index = None
    right = isinstance(index, dict) and all(isinstance(row, dict) for row in index.values())
    check(right and len(index) > 0, "its list of bundles is damaged")
    check_names(index)
    for row in index.values():
        check_names(row)
    places = [place for row in index.values() for place in row.values()]
    right = all(isinstance(place, str) for place in places)
    right = right and set(places) == files.keys() - {INDEX_FILE}
    check(right, "its list of bundles is not that of its files")
    if sum(len(files[place]) for place in places) > MAX_BYTES:
        raise ExportError(f"its bundles have more than {MAX_BYTES >> 20} MiB: pack fewer")
    return {
        folder: {name: files[place] for name, place in row.items()} for folder, row in index.items()
    }


def check_names(names: Mapping[str, object]) -> None:
    """Raises ExportError for names that are paths, too many, or one on some file systems."""
    for name in names:
        if not NAME.fullmatch(name):
            raise ExportError(
                f"file name {name!r} is not of letters, digits and ._- alone: rename the file"
            )
    check(len(names) <= MAX_FILES, f"more than {MAX_FILES} files")
    check(len({name.casefold() for name in names}) == len(names), "a file name is there twice")
