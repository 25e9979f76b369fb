"""compress train-lm from texts to a folder that loads."""

from __future__ import annotations

import json
import math
import signal

import numpy as np
import pytest
import soundfile
import torch

from compress import train_lm as command
from compress.checkpoint import load_state
from compress.lm import check_tokenizer, load_lm
from compress.lm.perplexity import sentence_nats
from compress.train_lm import LmSettings, load_tokenizer, train_lm
from streaming.errors import InputError
from tests.lm.test_training import in_memory, stop_at
from tests.lm.tiny_models import MODELS, random_sentences, tiny_ngram

QUICK = {"steps": 30, "width": 16}


@pytest.mark.parametrize("kind", ["ngram", "lstm"])
def test_a_folder_that_loads(kind, tokenizer_file, text, tmp_path):
    settings = LmSettings(kind=kind, **QUICK)
    record = train_lm(settings, tokenizer_file, [text], [], tmp_path / "lm")
    lm = load_lm(tmp_path / "lm")
    assert lm.kind == kind
    check_tokenizer(lm, load_tokenizer(tokenizer_file))
    assert json.loads((tmp_path / "lm" / "record.json").read_text()) == record
    assert record["sentences"] + record["perplexity"]["held_out"]["sentences"] == 400
    assert record["perplexity"]["held_out"]["per_token"] < 94  # as many as there are labels
    assert not (tmp_path / "lm" / "corpus").exists()


@pytest.mark.parametrize("kind", ["ngram", "lstm"])
def test_twice_the_same_bytes(kind, tokenizer_file, text, tmp_path):
    for name in ("a", "b"):
        train_lm(LmSettings(kind=kind, **QUICK), tokenizer_file, [text], [], tmp_path / name)
    contents = [(tmp_path / name / "lm.safetensors").read_bytes() for name in ("a", "b")]
    assert contents[0] == contents[1]


def test_held_out_sentences_are_foreseen(tokenizer_file, tmp_path, monkeypatch):
    """Sentences of the grammar that training never saw: context halves the perplexity."""
    monkeypatch.setattr(command, "GRAMMAR_SENTENCES", 4000)
    records = {
        order: train_lm(LmSettings(order=order), tokenizer_file, [], [], tmp_path / f"lm{order}")
        for order in (2, 4)
    }
    found = {order: record["perplexity"]["unseen"] for order, record in records.items()}
    assert found[4]["per_token"] < 0.6 * found[2]["per_token"]
    assert found[4]["per_word"] < 0.6 * found[2]["per_word"]
    assert found[4]["sentences"] == found[2]["sentences"] > 100


def test_perplexity_is_that_of_the_unigram_by_hand():
    """An n-gram without contexts gives each sentence the product of its tokens and its end."""
    lm = tiny_ngram()
    lm.levels = []
    sentences = random_sentences(9, seed=5)
    nats = list(sentence_nats(lm, in_memory(sentences), np.arange(9)))
    for tokens, found in zip(sentences, nats, strict=True):
        probabilities = lm.unigram[[*tokens, 0]].astype(float)
        assert found == pytest.approx(-np.log(probabilities).sum(), rel=1e-5)


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_perplexity_does_not_depend_on_batches(kind, monkeypatch):
    lm, split = MODELS[kind](), in_memory(random_sentences(30, seed=6))
    together = list(sentence_nats(lm, split, np.arange(30)))
    monkeypatch.setattr("compress.lm.perplexity.BATCH_CELLS", 100)
    assert list(sentence_nats(lm, split, np.arange(30))) == pytest.approx(together, rel=1e-5)
    assert all(math.isfinite(value) for value in together)


def test_transcripts_of_a_pack(tokenizer_file, tmp_path):
    pack = tmp_path / "pack"
    pack.mkdir()
    soundfile.write(pack / "a.wav", np.zeros(1600), 16_000)
    rows = [
        {"audio_filepath": "a.wav", "id": str(number), "text": text, "split": split}
        for number, (text, split) in enumerate([("one two", "train")] * 40 + [("6", "test")] * 3)
    ]
    (pack / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = train_lm(LmSettings(), tokenizer_file, [], [str(pack)], tmp_path / "lm")
    assert record["data"] == ["pack"]
    assert record["sentences"] + record["perplexity"]["held_out"]["sentences"] == 40
    assert record["perplexity"].keys() == {"held_out"}  # every held-out text was trained on
    rows[0]["text"] = "6"
    (pack / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"pack, utterance 0: '6' has signs"):
        train_lm(LmSettings(), tokenizer_file, [], [str(pack)], tmp_path / "other")


def test_a_finished_one_is_not_trained_again(tokenizer_file, text, tmp_path, monkeypatch):
    record = train_lm(LmSettings(), tokenizer_file, [text], [], tmp_path / "lm")
    monkeypatch.setattr(command, "fit", None)
    assert train_lm(LmSettings(), tokenizer_file, [text], [], tmp_path / "lm", True) == record
    with pytest.raises(InputError, match=r"holds a run: add --resume"):
        train_lm(LmSettings(), tokenizer_file, [text], [], tmp_path / "lm")
    with pytest.raises(InputError, match=r"was made with settings.order 4, now it is 3"):
        train_lm(LmSettings(order=3), tokenizer_file, [text], [], tmp_path / "lm", True)
    text.write_text(text.read_text() + "\none more")
    with pytest.raises(InputError, match=r"was made with text.*corpus.txt"):
        train_lm(LmSettings(), tokenizer_file, [text], [], tmp_path / "lm", True)


def test_interrupted_and_resumed_is_the_same(tokenizer_file, text, tmp_path, monkeypatch):
    settings = LmSettings(kind="lstm", **QUICK)
    train_lm(settings, tokenizer_file, [text], [], tmp_path / "whole")

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stop_at(patched, 12, lambda: signal.raise_signal(signal.SIGINT))
        train_lm(settings, tokenizer_file, [text], [], tmp_path / "stopped")
    assert load_state(tmp_path / "stopped" / "training" / "checkpoint.pt")["step"] == 13
    train_lm(settings, tokenizer_file, [text], [], tmp_path / "stopped", resume=True)
    tensors = [load_lm(tmp_path / name).tensors() for name in ("whole", "stopped")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "gpt"}, r"no language model 'gpt': --kind is ngram or lstm"),
        ({"order": 1}, r"--order is 1: give 2 to 5"),
        ({"steps": 0}, r"--steps is 0: give 1"),
        ({"width": -3}, r"--width is -3: give 1 to 4096"),
        ({"layers": 9}, r"--layers is 9: give 1 to 2"),
        ({"seed": -1}, r"--seed is -1: give 0"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(InputError, match=message):
        LmSettings(**changes)


def test_inputs_that_are_not_there(tokenizer_file, text, tmp_path):
    with pytest.raises(InputError, match=r"--tokenizer is a model folder or its bpe.model"):
        train_lm(LmSettings(), tmp_path, [text], [], tmp_path / "lm")
    with pytest.raises(InputError, match=r"gone.txt is no file: --text is a text file"):
        train_lm(LmSettings(), tokenizer_file, [tmp_path / "gone.txt"], [], tmp_path / "lm")
    with pytest.raises(InputError, match=r"gone does not exist"):
        train_lm(LmSettings(), tokenizer_file, [], [str(tmp_path / "gone")], tmp_path / "lm")
    with pytest.raises(InputError, match=r"corpus.txt is not a SentencePiece model"):
        train_lm(LmSettings(), text, [text], [], tmp_path / "lm")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds other files: choose another --out"):
        train_lm(LmSettings(), tokenizer_file, [text], [], tmp_path / "other")
