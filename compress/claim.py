"""A folder belongs to one configuration: any other, and other files, are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from compress.atomic import write_atomically
from streaming.errors import InputError


def claim_folder(wanted: dict[str, Any], folder: Path, resume: bool) -> None:
    """Write config.yaml, or see that it says the same. Nothing of another run is touched.

    Raises InputError for a folder with other files, with a run while `resume` is False, or with a
    run of other settings.
    """
    path = folder / "config.yaml"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose another --out")
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} holds other files: choose another --out")
        write_atomically(path, lambda growing: growing.write_text(yaml.safe_dump(wanted)))
        return
    if not resume:
        raise InputError(f"{folder} holds a run: add --resume to go on, or choose another --out")
    compare_settings(read_settings(path), wanted, folder)


def read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{path} is not of a run of this project: choose another --out")
    return settings


def compare_settings(stored: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    stored, wanted = flatten(stored), flatten(wanted)
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise InputError(
                f"{folder} was made with {name} {stored.get(name)!r}, now it is "
                f"{wanted.get(name)!r}: choose another --out or ask for the same"
            )


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"recipe": {"seed": 0}} -> {"recipe.seed": 0}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
