"""A stream as bytes, to go on later or on another machine that has the same bundle.

The bytes are numpy's .npz: arrays, and a JSON text that says where each belongs. Reading them runs
no code and takes nothing on trust: what comes out is tried on the recogniser before it is used.
"""

import io
import json
import zipfile
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from streaming.search import STATES, Token

MAX_BYTES = 1 << 28
CLASSES = {cls.__name__: cls for cls in (Token, *STATES)}


def write_values(values: dict[str, Any]) -> bytes:
    """Numbers, texts, arrays, lists, tuples and the CLASSES, nested at will -> bytes."""
    arrays: list[Any] = []
    text = json.dumps(_to_json(values, arrays))
    file = io.BytesIO()
    named = {str(number): array for number, array in enumerate(arrays)}
    np.savez(file, json=np.array(text), **named)
    return file.getvalue()


def read_values(paused: bytes) -> dict[str, Any]:
    """The other way round. Raises ValueError for bytes that write_values() did not write."""
    if len(paused) > MAX_BYTES:
        raise ValueError(f"{len(paused)} bytes, more than {MAX_BYTES}")
    try:
        with zipfile.ZipFile(io.BytesIO(paused)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                raise ValueError("unpacks to more than it may")
        with np.load(io.BytesIO(paused), allow_pickle=False) as arrays:
            values = _from_json(json.loads(str(arrays["json"])), arrays)
    except (zipfile.BadZipFile, KeyError, TypeError, EOFError, OSError, RecursionError) as error:
        raise ValueError(f"damaged: {error}") from None
    if not isinstance(values, dict):
        raise ValueError("holds no table of values")
    return values


def _to_json(value: Any, arrays: list[Any]) -> Any:
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_to_json(item, arrays) for item in value]}
    if isinstance(value, dict):
        return {"dict": {str(key): _to_json(item, arrays) for key, item in value.items()}}
    if is_dataclass(value) and not isinstance(value, type):
        content = {f.name: _to_json(getattr(value, f.name), arrays) for f in fields(value)}
        return {"class": type(value).__name__, "fields": content}
    assert value is None or isinstance(value, bool | int | float | str), type(value)
    return value


def _from_json(value: Any, arrays: Any) -> Any:
    match value:
        case {"array": int(number)}:
            return arrays[str(number)]
        case {"tuple": list(items)}:
            return tuple(_from_json(item, arrays) for item in items)
        case {"list": list(items)}:
            return [_from_json(item, arrays) for item in items]
        case {"dict": dict(items)}:
            return {key: _from_json(item, arrays) for key, item in items.items()}
        case {"class": str(name), "fields": dict(items)}:
            return CLASSES[name](**{k: _from_json(v, arrays) for k, v in items.items()})
        case bool() | int() | float() | str() | None:
            return value
    raise ValueError(f"holds {value!r:.40}")
