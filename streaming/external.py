"""Weights that an ONNX file keeps in another file, found without onnx, before onnxruntime opens it.

encoder.onnx may keep them in encoder.onnx.data and nowhere else: a location is a path, and that of
a forged graph may be /etc/passwd, or an address in memory. The file is a protobuf; the messages
below are read on the way to a tensor's external_data, all else is skipped.
"""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from streaming.errors import BundleError

SUFFIX = ".data"
KEY = b"location"
SMALL = 4096  # bytes of a message that are searched for the key, which has no other spelling
MAX_DEPTH = 64  # protobuf itself stops at 100

# message -> field number -> message, in the numbers of onnx.proto; 13 of a tensor: external_data.
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
FIXED_BYTES = {1: 8, 5: 4}  # wire type -> size of a value without a length
Bytes = Any  # bytes or mmap: both slice and find


def find_external(path: Path) -> str | None:
    """The name of the file beside `path` that holds weights of it; None when all are inside.

    Raises BundleError for weights anywhere else, for a file that is shorter or longer than what
    they need, and for what is no protobuf.
    """
    if path.stat().st_size == 0:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            parts = list(_list_external(data, 0, len(data), "model"))
        except (IndexError, ValueError):
            raise BundleError(
                f"{path}: not an ONNX file, or cut short: copy or export the bundle again"
            ) from None
    if not parts:
        return None
    name = path.name + SUFFIX
    for part in parts:
        if part.get(KEY) != name.encode():
            where = part.get(KEY, b"").decode(errors="replace")
            raise BundleError(
                f"{path}: weights lie in {where[:100]!r}, not in {name}: use a bundle you trust"
            )
    _check_size(path.with_name(name), parts)
    return name


def _check_size(path: Path, parts: Sequence[Mapping[bytes, bytes]]) -> None:
    """The file must end where the last weight does."""
    if not path.is_file():
        raise BundleError(f"{path}: missing: copy the bundle again, with all its files")
    numbers = [part.get(key, b"") for part in parts for key in (b"offset", b"length")]
    if not all(number.isdigit() and len(number) < 19 for number in numbers):
        raise BundleError(f"{path}: a weight has no offset and length in it: export it again")
    needed = max(int(part[b"offset"]) + int(part[b"length"]) for part in parts)
    size = path.stat().st_size
    if size != needed:
        raise BundleError(
            f"{path}: has {size} bytes, its graph declares {needed}: copy or export it again"
        )


def _list_external(
    data: Bytes, start: int, end: int, message: str, depth: int = 0
) -> Iterator[dict[bytes, bytes]]:
    """Of each tensor in a message its external_data, key -> value; ValueError for no protobuf."""
    if depth > MAX_DEPTH:
        raise ValueError("too deep")
    entries: list[dict[int, bytes]] = []
    for number, begin, stop in _read_fields(data, start, end):
        inner = MESSAGES[message].get(number)
        if inner == "entry":
            fields = {n: bytes(data[a:b]) for n, a, b in _read_fields(data, begin, stop)}
            entries.append(fields)
        elif inner and (stop - begin > SMALL or KEY in data[begin:stop]):
            yield from _list_external(data, begin, stop, inner, depth + 1)
    if entries:
        found = {entry.get(1, b""): entry.get(2, b"") for entry in entries}
        if len(found) < len(entries):
            raise ValueError("a key is there twice")
        yield found


def _read_fields(data: Bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of the fields of a message that have a length; others are skipped."""
    while start < end:
        tag, start = _read_varint(data, start)
        wire = tag & 7
        if wire == 0:
            _, start = _read_varint(data, start)
            continue
        size = FIXED_BYTES.get(wire)
        if size is None:
            if wire != 2:
                raise ValueError("a group, which onnx.proto has none of")
            size, start = _read_varint(data, start)
            if start + size <= end:
                yield tag >> 3, start, start + size
        start += size
    if start != end:
        raise ValueError("a field leaves its message")


def _read_varint(data: Bytes, start: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[start]
        start += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, start
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
