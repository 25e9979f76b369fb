"""Files that are written whole or not at all, and what a full disk looks like."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from streaming.errors import InputError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a file beside `path` and move it there; a full disk leaves `path` as it was.

    Raises InputError when the disk is full or the folder cannot be written.
    """
    growing = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(growing)
        with growing.open("rb") as file:
            os.fsync(file.fileno())
        growing.replace(path)
    except Exception as error:
        if is_disk_full(error):
            raise InputError(
                f"no space left on the disk of {path.parent}: free some and run again with "
                "--resume; what was saved before is intact"
            ) from error
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            raise InputError(
                f"{path} cannot be written ({error}): choose another folder"
            ) from error
        raise
    finally:  # an interruption, too, leaves nothing behind
        with suppress(OSError):
            growing.unlink()


def is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda growing: growing.write_text(text))
