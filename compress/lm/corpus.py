"""Texts of any size as token files: read line by line, tokenised, split, memory-mapped.

folder/  train.tokens  held-out.tokens    int32, 0 before the first sentence and after each
         train.index   held-out.index     RECORD of each sentence
         corpus.json                      written last: the files are whole

A tenth is held out by a hash of the sentence and its number, so a sentence that comes often is
trained on and judged as often as it comes. Judged apart are sentences that training never saw.
"""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from compress.atomic import write_json
from compress.data.cuts import normalise_text
from compress.data.tokenizer import UNKNOWN_ID, Tokenizer
from compress.lm.model import BOUNDARY
from compress.progress import progress_bar
from streaming.errors import InputError

MAX_LINE_BYTES = 100_000
BATCH_SENTENCES = 2_000
SPLITS = ("train", "held-out")
# Where the sentence's closing 0 stands in the token file, its words, and a hash of its text.
RECORD = np.dtype([("end", "<i8"), ("words", "<i4"), ("text", "<u8")])


class Sentence(NamedTuple):
    """A normalised text; origin opens error messages: "FILE, line N"."""

    origin: str
    text: str


@dataclass(frozen=True)
class Sentences:
    """One split: tokens (num_tokens,) and records (num_sentences,), both memory-mapped."""

    tokens: np.ndarray
    records: np.ndarray

    def __len__(self) -> int:
        return len(self.records)

    def span(self, index: int) -> np.ndarray:
        """The tokens of one sentence with the 0 before and the 0 after."""
        start = self.records["end"][index - 1] if index else 0
        return self.tokens[start : self.records["end"][index] + 1]

    def chunks(self, num_tokens: int = 4_000_000) -> Iterator[np.ndarray]:
        """All tokens in pieces of whole sentences, about `num_tokens` each."""
        ends = self.records["end"]
        start = 0
        while start < ends[-1]:
            place = int(np.searchsorted(ends, start + num_tokens))
            end = ends[min(place, len(ends) - 1)]
            yield self.tokens[start : end + 1]
            start = end

    def sample(self, num: int) -> np.ndarray:
        """Indices of at most `num` sentences, evenly spread."""
        return np.unique(np.linspace(0, len(self) - 1, min(num, len(self))).astype(np.int64))


class Corpus(NamedTuple):
    train: Sentences
    held_out: Sentences


def read_sentences(path: Path) -> Iterator[Sentence]:
    """The lines of a text file, plain or .gz, that hold words; never more than one in memory.

    Raises InputError naming file and line for a line that is too long or not UTF-8.
    """
    try:
        with path.open("rb") as raw, progress_bar() as bar:
            megabytes = max(1, path.stat().st_size // 1_000_000)
            task = bar.add_task(path.name, total=megabytes, note="MB")
            lines = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            found = False
            for number in itertools.count(1):
                origin = f"{path}, line {number}"
                line = lines.readline(MAX_LINE_BYTES + 1)
                if not line:
                    break
                text = normalise_text(decode(origin, line))
                if text:
                    found = True
                    yield Sentence(origin, text)
                if number % BATCH_SENTENCES == 0:
                    bar.update(task, completed=raw.tell() // 1_000_000)
            bar.update(task, completed=megabytes)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise InputError(f"{path} is a damaged .gz file: copy or download it again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check --text") from error
    if not found:
        raise InputError(f"{path} holds no words: one sentence on each line")


def decode(origin: str, line: bytes) -> str:
    if len(line) > MAX_LINE_BYTES:
        raise InputError(
            f"{origin} is longer than {MAX_LINE_BYTES} bytes: put one sentence on each line"
        )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{origin} is not UTF-8: convert the file with `iconv -t utf-8`") from None


def encode_corpus(sentences: Iterable[Sentence], tokenizer: Tokenizer, folder: Path) -> Corpus:
    """Tokenise into `folder`, or open what an earlier call finished there.

    Raises InputError for text that the tokenizer has no signs for, and for too few sentences.
    """
    if not (folder / "corpus.json").exists():
        counts = write_corpus(sentences, tokenizer, folder)
        write_json(folder / "corpus.json", counts)
    return open_corpus(folder)


def write_corpus(
    sentences: Iterable[Sentence], tokenizer: Tokenizer, folder: Path
) -> dict[str, int]:
    folder.mkdir(parents=True, exist_ok=True)
    writers = {split: SplitWriter(folder, split) for split in SPLITS}
    try:
        number = 0
        for batch in batches(sentences):
            tokens = tokenizer.pieces.encode([sentence.text for sentence in batch])
            for sentence, labels in zip(batch, tokens, strict=True):
                if UNKNOWN_ID in labels:
                    raise InputError(
                        f"{sentence.origin}: {sentence.text[:80]!r} has signs that the tokenizer "
                        "has no tokens for: spell it in letters, numbers as words"
                    )
                writers[split_of(number, sentence.text)].add(sentence.text, labels)
                number += 1
            for writer in writers.values():
                writer.flush()
    finally:
        for writer in writers.values():
            writer.close()
    if not all(writer.num_sentences for writer in writers.values()):
        raise InputError(
            f"{number} sentences are too few to hold out a tenth: give more with --text or --data"
        )
    return {split: writer.num_sentences for split, writer in writers.items()}


def batches(sentences: Iterable[Sentence]) -> Iterator[list[Sentence]]:
    remaining = iter(sentences)
    while batch := list(itertools.islice(remaining, BATCH_SENTENCES)):
        yield batch


def split_of(number: int, text: str) -> str:
    return "held-out" if zlib.crc32(f"{number} {text}".encode()) % 10 == 0 else "train"


class SplitWriter:
    """Appends sentences to one split's two files."""

    def __init__(self, folder: Path, split: str) -> None:
        self.tokens = (folder / f"{split}.tokens").open("wb")
        self.index = (folder / f"{split}.index").open("wb")
        self.num_sentences = 0
        self.end = 0
        self.labels: list[int] = [BOUNDARY]
        self.records: list[tuple[int, int, int]] = []

    def add(self, text: str, labels: list[int]) -> None:
        self.labels += [*labels, BOUNDARY]
        self.end += len(labels) + 1
        self.num_sentences += 1
        digest = blake2b(text.encode(), digest_size=8).digest()
        self.records.append((self.end, text.count(" ") + 1, int.from_bytes(digest, "little")))

    def flush(self) -> None:
        self.tokens.write(np.array(self.labels, "<i4").tobytes())
        self.index.write(np.array(self.records, RECORD).tobytes())
        self.labels, self.records = [], []

    def close(self) -> None:
        self.tokens.close()
        self.index.close()


def open_corpus(folder: Path) -> Corpus:
    """Raises InputError when the files do not hold what corpus.json says."""
    try:
        counts = json.loads((folder / "corpus.json").read_text())
        found = [
            Sentences(
                np.memmap(folder / f"{split}.tokens", "<i4", "r"),
                np.memmap(folder / f"{split}.index", RECORD, "r"),
            )
            for split in SPLITS
        ]
        whole = all(
            len(split) == counts[name] and split.records["end"][-1] + 1 == len(split.tokens)
            for name, split in zip(SPLITS, found, strict=True)
        )
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(f"{folder} is damaged: delete it and run again with --resume")
    return Corpus(*found)
