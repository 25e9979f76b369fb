"""Language models on disk, read without pickled code and strictly checked.

folder/  lm.safetensors   config.json with the hashes of weights and tokenizer, written last
         lm.arpa          of an n-gram, for decoders; never read back (arpa.py)
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from compress.atomic import write_atomically, write_json
from compress.lm.config import FileConfig, NgramConfig
from compress.lm.lstm import LstmModel
from compress.lm.model import LanguageModel
from compress.lm.ngram import NgramModel
from streaming.errors import InputError

WEIGHTS = "lm.safetensors"
MAX_CONFIG_BYTES = 1_000_000


def save_lm(lm: NgramModel | LstmModel, folder: Path) -> None:
    """Write a language model's folder. Raises InputError when the disk is full."""
    content = save({name: part.contiguous() for name, part in lm.tensors().items()})
    config = FileConfig(
        model=lm.config,
        tokenizer_sha256=lm.tokenizer_sha256,
        weights_sha256=hashlib.sha256(content).hexdigest(),
        weights_bytes=len(content),
    )
    write_atomically(folder / WEIGHTS, lambda path: path.write_bytes(content))
    write_json(folder / "config.json", config.model_dump())


def load_lm(folder: Path | str) -> LanguageModel[Any]:
    """The language model of a folder. Raises InputError naming the file at fault and the fix."""
    folder = Path(folder)
    missing = [name for name in ("config.json", WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} lacks {', '.join(missing)}: give the --out of a finished compress train-lm"
        )
    config = read_config(folder / "config.json")
    path = folder / WEIGHTS
    content = read_weights(path, config)
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {error}: train it again") from error
    if isinstance(config.model, NgramConfig):
        return NgramModel.from_tensors(config.model, tensors, config.tokenizer_sha256, str(path))
    return LstmModel.from_tensors(config.model, tensors, config.tokenizer_sha256, str(path))


def read_config(path: Path) -> FileConfig:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise InputError(f"{path} is no language model's configuration: it is too large")
    try:
        return FileConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{path}: {place}: {first['msg']}: it wants the config.json of compress train-lm"
        ) from error


def read_weights(path: Path, config: FileConfig) -> bytes:
    """The file's bytes, none of them read when there are more or fewer than there should be."""
    size = path.stat().st_size
    if size != config.weights_bytes:
        raise InputError(
            f"{path} has {size} bytes, config.json says {config.weights_bytes}: "
            "copy the folder again"
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != config.weights_sha256:
        raise InputError(
            f"{path} was changed or belongs to another config.json: copy the folder again"
        )
    return content
