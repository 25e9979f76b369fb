"""A bundle as one file to download, and back: the same folder, bit by bit.

Zeros of unstructured and n:m pruning make a graph neither smaller nor faster; here they become a
smaller download (packfile.py), and `list_zeros` says which layers hold them. Unpacking needs numpy
and zstandard, no onnx and no torch.
"""

from __future__ import annotations

import dataclasses
import errno
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.card import CARD_FILE, write_card
from export.errors import ExportError
from export.packfile import HEAD, MAX_BYTES, Cut, decode, encode
from export.whole_folder import check_free, whole_folder
from streaming.bundle import (
    INFO_FILE,
    SUMS_FILE,
    BundleInfo,
    read_bundle,
    write_bundle_json,
    write_sha256sums,
)
from streaming.errors import BundleError

SUFFIX = ".pack"
MIN_CUT_BYTES = 64  # below, the index grows by what a cut saves
FEW_ZEROS = 0.05  # share of zeros that a layer has without being pruned


@dataclasses.dataclass(frozen=True)
class Zeros:
    """Zeros that a layer's graph stores and multiplies like any other value.

    bytes: what they take in the bundle's graph, unpacked.
    """

    layer: str
    zeros: int
    values: int
    bytes: int


def list_zeros(info: BundleInfo) -> list[Zeros]:
    """The layers whose zeros became neither bytes nor speed, the most zeros first.

    Layers that were narrowed hold none; those of block form (block_rows) leave theirs out.
    """
    rows = []
    for layer in info.layers:
        if layer.get("block_rows") or layer.get("sparsity", 0) < FEW_ZEROS:
            continue
        values = math.prod(layer["shape"])
        zeros = round(layer["sparsity"] * values)
        rows.append(Zeros(layer["name"], zeros, values, zeros * layer["bits"] // 8))
    return sorted(rows, key=lambda row: row.zeros, reverse=True)


def name_pack(folder: Path) -> Path:
    """bundle -> bundle.pack beside it; "." has the name of the folder it is."""
    folder = folder.resolve() if folder.name in ("", "..") else folder
    return folder.with_name(folder.name + SUFFIX)


def name_folder(file: Path) -> Path:
    """bundle.pack -> bundle beside it. Raises ExportError for another ending."""
    if file.suffix != SUFFIX or not file.stem:
        raise ExportError(f"{file}: does not end in {SUFFIX}: name the folder with --out")
    return file.with_suffix("")


def pack_bundle(folder: Path | str, file: Path | str) -> int:
    """Writes the default precision of the bundle in `folder` as `file`; returns its bytes.

    Other precisions stay out, so bundle.json, README.md and SHA256SUMS are made anew. Raises
    BundleError for a damaged bundle, ExportError: `file` exists, the bundle is beyond 1 GiB.
    """
    check_new(Path(file))
    return write_pack(collect_files(folder), Path(file), folder)


def check_new(file: Path) -> None:
    if file.exists():
        raise ExportError(f"{file}: exists already: choose another file or remove it")


def collect_files(folder: Path | str) -> dict[str, bytes]:
    """name -> content of what the bundle needs for its default precision. Raises BundleError."""
    info = read_bundle(folder)
    with tempfile.TemporaryDirectory(prefix="pack-") as place:
        copy_default_precision(info, Path(place))
        return {path.name: path.read_bytes() for path in sorted(Path(place).iterdir())}


def write_pack(files: dict[str, bytes], file: Path, source: Path | str) -> int:
    """Writes `file`, whole or not at all; returns its bytes. `source` is what an error names."""
    try:
        content = encode(files, {n: find_cuts(d) for n, d in files.items() if n.endswith(".onnx")})
    except ExportError as error:
        raise ExportError(f"{source}: {error}") from None
    assert decode(content) == files, "a pack must unpack to what was packed"
    growing = file.with_name(f".{file.name}.part")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            growing.write_bytes(content)
            growing.replace(file)
        finally:
            growing.unlink(missing_ok=True)
    return len(content)


def unpack_bundle(file: Path | str, folder: Path | str) -> BundleInfo:
    """Writes the bundle in `file` as `folder`, whole or not at all; returns it as read back.

    Raises ExportError: `folder` exists, `file` is no pack, is damaged or holds no bundle.
    """
    file, folder = Path(file), Path(folder)
    check_free(folder)
    files = read_files(file)
    with writing(folder), whole_folder(folder) as part:
        write_files(files, part, file)
    return read_bundle(folder)


def read_files(file: Path) -> dict[str, bytes]:
    """name -> content of what is in `file`. Raises ExportError naming it."""
    try:
        return decode(read_pack(file))
    except ExportError as error:
        raise ExportError(f"{file}: {error}") from None


def write_files(files: dict[str, bytes], folder: Path, source: Path) -> None:
    """Writes and checks a bundle; `source` is what an error names."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_sha256sums(folder)
    if (folder / SUMS_FILE).read_bytes() != files.get(SUMS_FILE):
        raise ExportError(f"{source}: its files do not match their {SUMS_FILE}: download it again")
    try:
        read_bundle(folder)
    except BundleError as error:
        raise ExportError(str(error).replace(str(folder), str(source))) from None


def read_pack(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_BYTES + HEAD.size:
            raise ExportError(f"larger than {MAX_BYTES >> 20} MiB: pack a smaller bundle")
        return file.read_bytes()
    except OSError as error:
        raise ExportError(f"{error.strerror}: give a file of compress pack") from None


def copy_default_precision(info: BundleInfo, folder: Path) -> None:
    """What a bundle needs to run in its default precision, and nothing else."""
    assert info.folder is not None
    used = info.files[info.default_precision]
    kept = info.list_files(info.default_precision)
    lines = (info.folder / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    others = {name for precision in info.files for name in info.list_files(precision)}
    others = (others - {*kept}) | {INFO_FILE, CARD_FILE, SUMS_FILE}
    for name in (line.partition("  ")[2] for line in lines):
        if name not in others:
            shutil.copyfile(info.folder / name, folder / name)
    smaller = dataclasses.replace(info, files={info.default_precision: used})
    write_bundle_json(smaller, folder)
    write_card(smaller, folder)
    write_sha256sums(folder)


def find_cuts(data: bytes) -> list[Cut]:
    """Where the weights lie in the bytes of an ONNX file.

    All of them, zeros or not: the mask of a dense weight compresses to nothing, and its bytes do
    better apart. Any place with the same bytes would do, because bytes are all that is restored.
    """
    import onnx  # a device that unpacks has none

    cuts, end = [], 0
    for weight in onnx.load_model_from_string(data).graph.initializer:
        raw = weight.raw_data
        start = data.find(raw, end)
        if len(raw) < MIN_CUT_BYTES or start < 0:
            continue
        width = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize
        if len(raw) % width == 0:
            cuts.append((start - end, len(raw) // width, width))
            end = start + len(raw)
    return cuts


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into a line; a full disk is the caller's to name."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ExportError(
            f"{path}: cannot be written ({error.strerror}): choose another place"
        ) from None
