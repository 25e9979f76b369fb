"""`compress export --chunk-ms 80,160`: one student, a bundle for each size of its chunks.

    OUT/80ms/  OUT/160ms/    each a whole bundle, which is run, verified and copied alone

What is the same bit by bit (predictor, joiner, tokens) is one file on the disk, export/links.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.bundle import export_model, name_bundle
from compress.models.chunks import to_frames
from export.links import link_same_files
from export.whole_folder import whole_folder
from streaming.errors import InputError


def export_chunks(folder: Path, out: Path, chunks_ms: Sequence[int], **settings: Any) -> list[Path]:
    """The folders of the bundles in `out`, which is written whole or not at all.

    folder: of the model. settings: of export_model. Raises InputError for a model that does not
    stream, and for an `out` that exists.
    """
    if out.exists():
        raise InputError(f"{out} exists: choose another --out")
    names = {name_chunk(chunk_ms): to_frames(chunk_ms) for chunk_ms in chunks_ms}
    with whole_folder(out) as part:
        for name, frames in names.items():
            whole_name = f"{name_bundle(out)}-{name}"
            export_model(folder, part / name, chunk_frames=frames, name=whole_name, **settings)
        link_same_files([part / name for name in names])
    return [out / name for name in names]


def name_chunk(chunk_ms: int) -> str:
    """The folder of a bundle among others of the same student."""
    return f"{chunk_ms}ms"
