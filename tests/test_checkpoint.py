"""Model folders and training states: the round trip, every foreign file, a full disk."""

from __future__ import annotations

import errno
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from compress.atomic import write_atomically
from compress.checkpoint import load_model, load_state, save_model, save_state
from compress.data.tokenizer import train_tokenizer
from streaming.errors import InputError
from tests.tiny_teacher import build_teacher, build_tokenizer


@pytest.fixture(scope="module")
def model():
    return build_teacher()


@pytest.fixture
def folder(model, tmp_path):
    save_model(model, tmp_path / "model", build_tokenizer(), {"seed": 0})
    return tmp_path / "model"


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_float32_round_trip_is_exact(model, folder):
    loaded, tokenizer = load_model(folder)
    assert loaded.config == model.config
    assert not loaded.training
    assert tokenizer.tokens() == build_tokenizer().tokens()
    assert json.loads((folder / "record.json").read_text()) == {"seed": 0}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_float16_halves_the_file_and_rounds(model, folder, tmp_path):
    save_model(model, tmp_path / "half", build_tokenizer(), {}, half=True)
    sizes = [(where / "model.safetensors").stat().st_size for where in (folder, tmp_path / "half")]
    assert sizes[1] < 0.55 * sizes[0]
    loaded, _ = load_model(tmp_path / "half")
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        assert torch.equal(tensor.half().float(), loaded.state_dict()[name]), name


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere is no folder: give one with config\.json"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "bpe.model"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"lacks {name}: a model folder holds"):
        load_model(folder)


def widen(tensors):
    tensors["joiner.output.bias"] = torch.zeros(99)


def rename(tensors):
    tensors["decoder.weight"] = tensors.pop("joiner.output.bias")


def poison(tensors):
    tensors["joiner.output.bias"][3] = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (widen, r"joiner\.output\.bias is \(99,\), config\.json wants \(48,\)"),
        (rename, "is of another model: decoder.weight is in only one of the two"),
        (poison, r"joiner\.output\.bias holds NaN or infinity"),
    ],
)
def test_foreign_weights(folder, change, message):
    edit_weights(folder, change)
    with pytest.raises(InputError, match=message):
        load_model(folder)


def test_weights_that_are_no_safetensors(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for content in (b"", b"no weights at all", whole[:40], whole[:-100]):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(InputError, match="not a safetensors file or is cut short"):
            load_model(folder)


def test_tokenizer_of_another_vocabulary(folder):
    other = train_tokenizer(["turn on the light", "one two three four"], 44)
    (folder / "bpe.model").write_bytes(other.model)
    with pytest.raises(InputError, match=r"has 44 tokens, config\.json says 48"):
        load_model(folder)


def test_tokenizer_that_is_none(folder):
    whole = (folder / "bpe.model").read_bytes()
    for content in (b"", b"no pieces", whole[: len(whole) // 2]):
        (folder / "bpe.model").write_bytes(content)
        with pytest.raises(InputError, match=r"bpe\.model is not a SentencePiece model"):
            load_model(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not a model's configuration"),
        (b"\xff\xfe", "is not a model's configuration"),
        (b"[1, 2]", "is not a model's configuration"),
        (b'{"format": "compress-transducer-1"}', "is not a model's configuration"),
        (b'{"format": "icefall"}', "says format 'icefall', this version reads"),
        (
            b'{"format": "compress-transducer-1", "transducer": {"vocab_size": 48}}',
            "config.json: encoder: Field required",
        ),
    ],
)
def test_foreign_configuration(folder, content, message):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_model(folder)


STATE = {"step": 3, "stage": {"weights": torch.arange(4.0)}, "names": ["a", "b"], "seconds": 1.5}


def test_state_round_trip(tmp_path):
    save_state(tmp_path / "checkpoint.pt", STATE)
    loaded = load_state(tmp_path / "checkpoint.pt")
    assert torch.equal(loaded["stage"].pop("weights"), torch.arange(4.0))
    assert loaded == {**STATE, "stage": {}}


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_code_is_not_run(tmp_path):
    for save in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))):
        save({"step": Bomb(tmp_path / "ran")}, tmp_path / "checkpoint.pt")
        with pytest.raises(InputError, match="is no training state of this project"):
            load_state(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "ran").exists()


def test_truncated_state(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_state(path, STATE)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"checkpoint\.pt .* cut short: delete it to start"):
        load_state(path)


def write_half(path, content):
    """What a full disk does."""
    with path.open("wb") as file:
        file.write(bytes(content)[: len(content) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_keeps_the_old_state(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_state(path, STATE)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(InputError, match=r"no space left .*: free some .* --resume"):
        save_state(path, STATE)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_real_full_disk(tmp_path):
    """/dev/full refuses every byte."""
    with pytest.raises(InputError, match="no space left"):
        write_atomically(tmp_path / "a", lambda _: Path("/dev/full").write_bytes(b"some"))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_the_old_model(model, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(InputError, match="no space left"):
        save_model(build_teacher(seed=1), folder, build_tokenizer(), {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_other_errors_pass_and_leave_nothing(tmp_path):
    for error in (ValueError("no"), KeyboardInterrupt()):

        def interrupt(growing, error=error):
            growing.write_text("half of it")
            raise error

        with pytest.raises(type(error)):
            write_atomically(tmp_path / "a", interrupt)
        assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(tmp_path):
    def refuse(growing):
        raise PermissionError(errno.EACCES, "Permission denied", str(growing))

    with pytest.raises(InputError, match=r"a cannot be written .*: choose another folder"):
        write_atomically(tmp_path / "a", refuse)
