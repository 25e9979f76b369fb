"""The format of a .pack: several files in one, small where weights hold zeros.

A zero costs one bit before zstd and, at 90 % zeros, half a bit after it. Numbers are little-endian:

    offset  bytes
    0       8      magic, 0x89 "ctpack" 0x0A
    8       4      version, 1
    12      16     sizes of the four parts that follow, 4 bytes each
    28             index, skeleton, masks, values: a zstd frame each, with its content's size

    index     JSON {"files": [{"name", "bytes", "cuts": [[skip, count, width], ...]}, ...]}:
              of each file, `skip` bytes stay where they are, then `count` values of `width` bytes
              are cut out, and so on; what follows the last cut stays, too
    skeleton  what stays, of all files one after another
    masks     of each cut a bit for every value, 1 where it is not zero, the first in the highest
              bit of a byte; zeros fill the last byte
    values    of each cut the values that are not zero: first the lowest byte of each, then the next
              byte of each, ... (the exponents of floats are alike, their last digits are noise)

Cuts cannot overlap, and no name is a path. Packs come from anywhere: every size is checked before
memory is taken for it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
import zstandard

from export.errors import ExportError

MAGIC = b"\x89ctpack\n"
VERSION = 1
HEAD = struct.Struct("<8sI4I")
LEVEL = 19  # 22 is no smaller on the bundle of a 5.5 M student
# 128 MiB back: bundles of one student (pack_several.py) have the same weights again and again.
WINDOW_LOG = 27
MAX_BYTES = 1 << 30  # of all files together: far above what a phone would load
MAX_INDEX_BYTES = 4 << 20
MAX_FILES = 64
MAX_WIDTH = 8
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")

Cut = tuple[int, int, int]  # skip, count, width


@dataclass(frozen=True)
class Entry:
    """One file of a pack."""

    name: str
    bytes: int
    cuts: list[Cut]

    @property
    def skeleton_bytes(self) -> int:
        return self.bytes - sum(count * width for _, count, width in self.cuts)

    @property
    def mask_bytes(self) -> int:
        return sum(-(-count // 8) for _, count, _ in self.cuts)


def encode(files: Mapping[str, bytes], cuts: Mapping[str, list[Cut]]) -> bytes:
    """The bytes of a pack. cuts: of the files that have any; a file without is skeleton alone.

    Raises ExportError for what `decode` would refuse.
    """
    entries = [Entry(name, len(data), cuts.get(name, [])) for name, data in files.items()]
    index = json.dumps({"files": [asdict(entry) for entry in entries]}, separators=(",", ":"))
    read_index(index.encode())
    skeleton, masks, values = BytesIO(), BytesIO(), BytesIO()
    for entry in entries:
        rest = BytesIO(files[entry.name])
        for skip, count, width in entry.cuts:
            skeleton.write(rest.read(skip))
            array = np.frombuffer(rest.read(count * width), np.uint8).reshape(count, width)
            mask = array.any(axis=1)
            masks.write(np.packbits(mask).tobytes())
            values.write(array[mask].T.tobytes())
        skeleton.write(rest.read())
    contents = (index.encode(), skeleton.getvalue(), masks.getvalue(), values.getvalue())
    settings = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, window_log=WINDOW_LOG, enable_ldm=True
    )
    frames = [zstandard.ZstdCompressor(compression_params=settings).compress(c) for c in contents]
    return HEAD.pack(MAGIC, VERSION, *map(len, frames)) + b"".join(frames)


def decode(content: bytes) -> dict[str, bytes]:
    """name -> file. Raises ExportError for anything but a whole pack of this version."""
    frames = split(content)
    entries = read_index(inflate(frames[0], MAX_INDEX_BYTES))
    skeleton_bytes = sum(entry.skeleton_bytes for entry in entries)
    skeleton = inflate(frames[1], skeleton_bytes, exact=True)
    masks = inflate(frames[2], sum(entry.mask_bytes for entry in entries), exact=True)
    values = inflate(frames[3], sum(entry.bytes for entry in entries) - skeleton_bytes)
    parts = BytesIO(skeleton), BytesIO(masks), BytesIO(values)
    files = {entry.name: restore(entry, *parts) for entry in entries}
    check(not parts[2].read(1), "it holds more values than it says")
    return files


def restore(entry: Entry, skeleton: BytesIO, masks: BytesIO, values: BytesIO) -> bytes:
    """One file, read on from where the file before it ended."""
    left = entry.skeleton_bytes
    file = BytesIO()
    for skip, count, width in entry.cuts:
        left -= skip
        file.write(skeleton.read(skip))
        bits = np.frombuffer(masks.read(-(-count // 8)), np.uint8)
        mask = np.unpackbits(bits, count=count).view(bool)
        num_kept = int(np.count_nonzero(mask))
        kept = np.frombuffer(values.read(num_kept * width), np.uint8)
        check(len(kept) == num_kept * width, "it holds fewer values than it says")
        array = np.zeros((count, width), np.uint8)
        array[mask] = kept.reshape(width, num_kept).T
        file.write(array.data)
    file.write(skeleton.read(left))
    return file.getvalue()


def split(content: bytes) -> list[bytes]:
    """The four frames after the head."""
    check(content[:8] == MAGIC, "not a file of compress pack, or damaged by a transfer as text")
    check(len(content) >= HEAD.size, "cut short")
    _, version, *sizes = HEAD.unpack_from(content)
    if version != VERSION:
        raise ExportError(
            f"pack version {version}, this program reads {VERSION}: install the version that "
            "wrote it, or pack the bundle again"
        )
    check(HEAD.size + sum(sizes) == len(content), "cut short, or longer than it says")
    reader = BytesIO(content)
    reader.seek(HEAD.size)
    return [reader.read(size) for size in sizes]


def inflate(frame: bytes, most: int, exact: bool = False) -> bytes:
    """The content of a zstd frame of at most, or exactly, `most` bytes.

    zstd takes memory for the size that the frame states, and stops where the content is larger.
    """
    try:
        size = zstandard.frame_content_size(frame)
        check(size == most if exact else 0 <= size <= most, "a part has not the size it should")
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError):
        raise ExportError("a part cannot be decompressed: download it again") from None


def read_index(text: bytes) -> list[Entry]:
    """The files of a pack, every value checked."""
    try:
        index = json.loads(text)
    except (ValueError, RecursionError):
        index = None
    right = isinstance(index, dict) and set(index) == {"files"} and is_list(index["files"])
    check(right, "its index is damaged")
    entries = [read_entry(row) for row in index["files"]]
    check(len(entries) <= MAX_FILES, f"more than {MAX_FILES} files")
    names = {entry.name.casefold() for entry in entries}
    check(len(names) == len(entries), "a file name is there twice")
    if sum(entry.bytes for entry in entries) > MAX_BYTES:
        raise ExportError(f"its files have more than {MAX_BYTES >> 20} MiB: pack a smaller bundle")
    return entries


def read_entry(row: Any) -> Entry:
    right = isinstance(row, dict) and set(row) == {"name", "bytes", "cuts"}
    check(right and is_size(row["bytes"]) and is_list(row["cuts"]), "its index is damaged")
    name = row["name"]
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ExportError(
            f"file name {name!r} is not of letters, digits and ._- alone: rename the file"
        )
    end = 0
    for cut in row["cuts"]:
        check(is_list(cut) and len(cut) == 3 and all(map(is_size, cut)), "a cut is damaged")
        skip, count, width = cut
        check(0 < width <= MAX_WIDTH, "a cut is damaged")
        end += skip + count * width
        check(end <= row["bytes"], "a cut leaves its file")
    return Entry(name, row["bytes"], [tuple(cut) for cut in row["cuts"]])


def is_list(value: object) -> bool:
    return isinstance(value, list)


def is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_BYTES


def check(right: bool, what: str) -> None:
    if not right:
        raise ExportError(f"{what}: download or pack it again")
