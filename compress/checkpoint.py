"""Models and training states on disk: written whole or not at all, read without pickled code.

model folder/  model.safetensors (float32 or float16)  config.json  bpe.model  record.json
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from compress.atomic import write_atomically, write_json
from compress.data.tokenizer import Tokenizer
from compress.models.config import TransducerConfig
from compress.models.transducer import Transducer
from streaming.errors import InputError

MODEL_FILES = ("config.json", "model.safetensors", "bpe.model")
FORMAT = "compress-transducer-1"


def save_model(
    model: Transducer,
    folder: Path,
    tokenizer: Tokenizer,
    record: dict[str, Any],
    half: bool = False,
) -> None:
    """Write a model folder; `half` stores the weights as float16. Raises InputError: full disk."""
    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    content = save(tensors)
    write_atomically(folder / "model.safetensors", lambda path: path.write_bytes(content))
    write_atomically(folder / "bpe.model", lambda path: path.write_bytes(tokenizer.model))
    write_json(folder / "record.json", record)
    config = {"format": FORMAT, "transducer": model.config.model_dump()}
    write_json(folder / "config.json", config)


def load_model(folder: Path | str) -> tuple[Transducer, Tokenizer]:
    """The model of a folder and its tokenizer. Raises InputError naming the file at fault."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give one with {', '.join(MODEL_FILES)}")
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} lacks {', '.join(missing)}: a model folder holds {', '.join(MODEL_FILES)}"
        )
    model = Transducer(read_config(folder / "config.json"))
    tokenizer = Tokenizer.load(folder / "bpe.model")
    if tokenizer.vocab_size != model.config.vocab_size:
        raise InputError(
            f"{folder}/bpe.model has {tokenizer.vocab_size} tokens, config.json says "
            f"{model.config.vocab_size}: they come from different models"
        )
    load_weights(model, folder / "model.safetensors")
    return model.eval(), tokenizer


def read_config(path: Path) -> TransducerConfig:
    try:
        config = json.loads(path.read_text())
        if config.get("format") != FORMAT:
            raise InputError(
                f"{path} says format {config.get('format')!r}, this version reads {FORMAT!r}: "
                "make the folder with compress train or compress run"
            )
        return TransducerConfig.model_validate(config["transducer"])
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError) as error:
        raise InputError(f"{path} is not a model's configuration: copy it again") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {place}: {first['msg']}") from error


def load_weights(model: Transducer, path: Path) -> None:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a safetensors file or is cut short: {error}") from error
    wanted = model.state_dict()
    foreign = sorted(set(wanted) ^ set(tensors))
    if foreign:
        raise InputError(f"{path} is of another model: {foreign[0]} is in only one of the two")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise InputError(
                f"{path}: {name} is {tuple(tensor.shape)}, config.json wants "
                f"{tuple(wanted[name].shape)}: they come from different models"
            )
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {name} holds NaN or infinity: the training had diverged")
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Training state (tensors, numbers, strings, lists, dicts), whole or not at all."""
    content = io.BytesIO()  # torch.save to a full disk raises RuntimeErrors of many wordings
    torch.save(state, content)
    write_atomically(path, lambda growing: growing.write_bytes(content.getbuffer()))


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state without running pickled code. Raises InputError for a broken one."""
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise InputError(
            f"{path} is no training state of this project or is cut short: delete it to start "
            "this stage again"
        ) from error
    return state
