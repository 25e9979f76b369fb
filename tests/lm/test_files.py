"""Folders of language models: written and read again, and everything else refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from compress.lm import load_lm, save_lm
from streaming.errors import InputError
from tests.lm.tiny_models import MODELS, tiny_lstm, tiny_ngram

TARGETS, LENGTHS = torch.tensor([[2, 3, 2, 4, 6]]), torch.tensor([5])


@pytest.fixture(params=sorted(MODELS))
def lm(request):
    return MODELS[request.param]()


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights(folder):
    return load((folder / "lm.safetensors").read_bytes())


def replace_weights(folder, tensors):
    """Weights that the hashes vouch for: what only the checks of the content can refuse."""
    content = save(tensors)
    (folder / "lm.safetensors").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    edit_config(folder, weights_sha256=sha256, weights_bytes=len(content))


def refused(folder, message):
    with pytest.raises(InputError, match=message) as caught:
        load_lm(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_round_trip(lm, tmp_path):
    save_lm(lm, tmp_path)
    loaded = load_lm(tmp_path)
    assert type(loaded) is type(lm)
    assert (loaded.vocab_size, loaded.tokenizer_sha256) == (lm.vocab_size, lm.tokenizer_sha256)
    assert torch.equal(loaded.log_probs(TARGETS, LENGTHS), lm.log_probs(TARGETS, LENGTHS))


def test_the_same_model_is_the_same_bytes(lm, tmp_path):
    save_lm(lm, tmp_path / "a")
    save_lm(lm, tmp_path / "b")
    for name in ("config.json", "lm.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_missing_and_cut_files(lm, tmp_path):
    refused(tmp_path, r"lacks config.json, lm.safetensors: give the --out of a finished")
    save_lm(lm, tmp_path)
    content = (tmp_path / "lm.safetensors").read_bytes()
    (tmp_path / "lm.safetensors").write_bytes(content[:-3])
    refused(tmp_path, r"bytes, config.json says \d+: copy the folder again")
    (tmp_path / "lm.safetensors").write_bytes(content[:-1] + b"\x7f")
    refused(tmp_path, r"was changed or belongs to another")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "compress-lm-9"}, r"format: Input should be 'compress-lm-1'"),
        ({"model": {"kind": "rnn"}}, r"model: Input tag 'rnn'"),
        ({"model": {"kind": "ngram", "vocab_size": 7, "order": 99}}, r"model.ngram.order"),
        ({"model": {"kind": "lstm", "vocab_size": 7, "width": 10**9}}, r"model.lstm.width"),
        ({"model": {"kind": "lstm", "vocab_size": 10**9}}, r"model.lstm.vocab_size"),
        ({"weights_bytes": 2**40}, r"weights_bytes"),
        ({"tokenizer_sha256": "none"}, r"tokenizer_sha256"),
        ({"surprise": 1}, r"surprise"),
    ],
)
def test_configurations_out_of_range(changes, message, tmp_path):
    save_lm(tiny_ngram(), tmp_path)
    edit_config(tmp_path, **changes)
    refused(tmp_path, message)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b" " * 2_000_000])
def test_a_configuration_that_is_none(content, tmp_path):
    save_lm(tiny_ngram(), tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    refused(tmp_path, r"config.json")


def test_no_safetensors(tmp_path):
    save_lm(tiny_ngram(), tmp_path)
    content = b"\x80\x04pickled"
    (tmp_path / "lm.safetensors").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    edit_config(tmp_path, weights_sha256=sha256, weights_bytes=len(content))
    refused(tmp_path, r"is not a safetensors file")


def test_weights_of_another_kind(tmp_path):
    save_lm(tiny_ngram(), tmp_path / "ngram")
    save_lm(tiny_lstm(), tmp_path / "lstm")
    theirs = weights(tmp_path / "lstm")
    replace_weights(tmp_path / "lstm", weights(tmp_path / "ngram"))
    refused(tmp_path / "lstm", r"is of another model")
    replace_weights(tmp_path / "ngram", theirs)
    refused(tmp_path / "ngram", r"is of another model")


def test_an_lstm_of_other_sizes_or_diverged(tmp_path):
    save_lm(tiny_lstm(), tmp_path)
    tensors = weights(tmp_path)
    replace_weights(tmp_path, tensors | {"bias": torch.zeros(9)})
    refused(tmp_path, r"bias is torch.float32 \(9,\), config.json wants torch.float32 \(7,\)")
    replace_weights(tmp_path, tensors | {"bias": tensors["bias"].double()})
    refused(tmp_path, r"bias is torch.float64")
    replace_weights(tmp_path, tensors | {"bias": tensors["bias"] + torch.nan})
    refused(tmp_path, r"bias holds NaN or infinity")


def last_plus(part, amount):
    changed = part.clone()
    changed[-1] += amount
    return changed


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("3.starts", lambda part: last_plus(part, 1)),
        ("3.starts", lambda part: part.flip(0)),
        ("3.starts", lambda part: part[:-1]),
        ("3.tokens", lambda part: last_plus(part, 1000)),
        ("3.tokens", lambda part: -part),
        ("3.tokens", lambda part: part * 0 + 1),
        ("3.tokens", lambda part: part.flip(0)),
        ("3.contexts", lambda part: last_plus(part, 7**2)),
        ("3.contexts", lambda part: part.flip(0)),
        ("3.shares", lambda part: last_plus(part, 0.1)),
        ("3.shares", lambda part: last_plus(part, np.nan)),
        ("3.shares", lambda part: -part),
        ("3.backoffs", lambda part: last_plus(part, np.inf)),
    ],
)
def test_a_spoilt_table(name, spoil, tmp_path):
    save_lm(tiny_ngram(), tmp_path)
    tensors = weights(tmp_path)
    replace_weights(tmp_path, tensors | {name: spoil(tensors[name]).contiguous()})
    refused(tmp_path, r"the table of order 3 is spoilt: train it again")


@pytest.mark.parametrize("spoil", [lambda p: p * 2, lambda p: p[:-1], lambda p: p * np.nan])
def test_a_spoilt_unigram(spoil, tmp_path):
    save_lm(tiny_ngram(), tmp_path)
    tensors = weights(tmp_path)
    replace_weights(tmp_path, tensors | {"unigram": spoil(tensors["unigram"]).contiguous()})
    refused(tmp_path, r"unigram is no distribution")


def test_a_table_of_the_wrong_type(tmp_path):
    save_lm(tiny_ngram(), tmp_path)
    tensors = weights(tmp_path)
    replace_weights(tmp_path, tensors | {"3.tokens": tensors["3.tokens"].long()})
    refused(tmp_path, r"3.tokens is no list of torch.int32")
