"""Texts to token files: read by the line, checked, split by hash."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import numpy as np
import pytest

from compress.lm.corpus import MAX_LINE_BYTES, Sentence, encode_corpus, read_sentences, split_of
from streaming.errors import InputError
from tests.tiny_teacher import build_tokenizer

TEXTS = ["turn on the light", "one", "two three", "Four, one: TWO!", "turn the one on"] * 12


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def numbered(texts):
    return [Sentence(f"line {number}", text) for number, text in enumerate(texts, start=1)]


def test_lines_are_normalised_and_blank_ones_skipped(tmp_path):
    path = write(tmp_path / "a.txt", "\ufeffTurn  ON -- the light!\r\n\n ... \nDon't.")
    assert list(read_sentences(path)) == [
        (f"{path}, line 1", "turn on the light"),
        (f"{path}, line 4", "don't"),
    ]


def test_gzip(tmp_path):
    path = write(tmp_path / "a.txt.gz", gzip.compress(b"one\ntwo\n"))
    assert [sentence.text for sentence in read_sentences(path)] == ["one", "two"]
    write(path, gzip.compress(b"one\ntwo\n" * 999)[:-20])
    with pytest.raises(InputError, match=r"a\.txt\.gz is a damaged \.gz file"):
        list(read_sentences(path))
    write(path, b"no gzip")
    with pytest.raises(InputError, match=r"a\.txt\.gz is a damaged \.gz file"):
        list(read_sentences(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.txt holds no words: one sentence on each line"),
        (b"\n -- \n", r"a\.txt holds no words"),
        (b"one\ntw\xff\n", r"a\.txt, line 2 is not UTF-8: convert the file with `iconv"),
        (b"one\n" + b"a " * MAX_LINE_BYTES, r"a\.txt, line 2 is longer than 100000 bytes: put one"),
    ],
)
def test_texts_that_are_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        list(read_sentences(write(tmp_path / "a.txt", content)))


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        list(read_sentences(tmp_path / "gone.txt"))
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory"):
        list(read_sentences(tmp_path))


@pytest.mark.parametrize("content", [b"a" * 30_000_000, b"one two three four\n" * 300_000])
def test_a_large_file_is_never_in_memory(tmp_path, content):
    """One line of 30 MB is refused at its first 100 kB; lines go by one at a time."""
    path = write(tmp_path / "a.txt", content)
    del content
    sentences = read_sentences(path)
    tracemalloc.start()
    try:
        for _ in range(5_000):
            next(sentences)
    except InputError as error:
        assert "line 1 is longer" in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        sentences.close()
    assert peak < 2_000_000


def test_files_hold_every_sentence(tmp_path, tokenizer):
    texts = [text.lower().replace(",", "").replace(":", "").replace("!", "") for text in TEXTS]
    corpus = encode_corpus(numbered(texts), tokenizer, tmp_path)
    found = {"train": [], "held-out": []}
    for name, split in zip(found, corpus, strict=True):
        for index in range(len(split)):
            span = split.span(index)
            assert span[0] == 0 == span[-1]
            found[name].append(tokenizer.decode(span.tolist()))
            assert split.records["words"][index] == len(found[name][-1].split())
    expected = {"train": [], "held-out": []}
    for number, text in enumerate(texts):
        expected[split_of(number, text)].append(text)
    assert found == expected
    assert 1 <= len(found["held-out"]) <= 15


def test_a_tenth_is_held_out():
    held_out = [split_of(number, "one") == "held-out" for number in range(10_000)]
    assert 0.09 < np.mean(held_out) < 0.11


def test_chunks_end_with_sentences(tmp_path, tokenizer):
    train = encode_corpus(numbered(["one two"] * 50), tokenizer, tmp_path).train
    chunks = list(train.chunks(num_tokens=20))
    assert len(chunks) > 3
    assert all(chunk[0] == 0 == chunk[-1] for chunk in chunks)
    joined = np.concatenate([chunks[0], *(chunk[1:] for chunk in chunks[1:])])
    assert np.array_equal(joined, train.tokens)


def test_samples_are_spread(tmp_path, tokenizer):
    train = encode_corpus(numbered(["one two"] * 50), tokenizer, tmp_path).train
    assert train.sample(3).tolist() == [0, (len(train) - 1) // 2, len(train) - 1]
    assert train.sample(10**6).tolist() == list(range(len(train)))


def test_signs_without_a_token(tmp_path, tokenizer):
    with pytest.raises(InputError, match=r"line 3: 'turn on 5' has signs .*numbers as words"):
        encode_corpus(numbered(["one", "two", "turn on 5"]), tokenizer, tmp_path)
    corpus = encode_corpus(numbered(["one", "two"] * 20), tokenizer, tmp_path)
    assert len(corpus.train) + len(corpus.held_out) == 40


def test_too_few_sentences(tmp_path, tokenizer):
    with pytest.raises(InputError, match=r"1 sentences are too few to hold out a tenth"):
        encode_corpus(numbered(["one"]), tokenizer, tmp_path)


def test_a_finished_corpus_is_not_made_again(tmp_path, tokenizer):
    first = encode_corpus(numbered(["one", "two"] * 20), tokenizer, tmp_path)
    again = encode_corpus(iter(()), tokenizer, tmp_path)
    assert np.array_equal(first.train.tokens, again.train.tokens)


@pytest.mark.parametrize("name", ["train.tokens", "held-out.index", "corpus.json"])
def test_a_damaged_corpus(tmp_path, tokenizer, name):
    encode_corpus(numbered(["one", "two"] * 20), tokenizer, tmp_path)
    (tmp_path / name).write_bytes(b"[" if name.endswith("json") else b"")
    with pytest.raises(InputError, match=r"is damaged: delete it and run again with --resume"):
        encode_corpus(iter(()), tokenizer, tmp_path)
    if name.endswith("json"):
        (tmp_path / name).write_text(json.dumps({"train": 1, "held-out": 1}))
        with pytest.raises(InputError, match=r"is damaged"):
            encode_corpus(iter(()), tokenizer, tmp_path)
