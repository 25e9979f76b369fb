"""ARPA files, plain or .gz: read line by line, every count and token checked.

    \\data\\                       then for every length          \\end\\
    ngram 1=5  ngram 2=8          \\2-grams:
                                  -0.3010 <s> ▁turn -0.1249     log10 P, tokens, log10 backoff
"""

import gzip
import math
import re
import zlib
from array import array
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path

import numpy as np

from streaming.errors import InputError
from streaming.features import FloatArray
from streaming.search.ngram import KeyArray, Table
from streaming.tokens import UNKNOWN, WORD_START

MAX_ORDER = 6
MAX_NGRAMS = 20_000_000  # 16 bytes each
MAX_LINE_BYTES = 10_000
MAX_LINES = MAX_NGRAMS + 10_000
LOG_ZERO = -99.0  # what SRILM writes for a probability of 0
NATS = math.log(10)
START, END = b"<s>", b"</s>"
UNKNOWNS = (b"<unk>", b"<UNK>")
_COUNT = re.compile(rb"ngram ([1-9])=([0-9]{1,9})")


def read_arpa(path: Path, symbols: Sequence[str], blank_id: int) -> list[Table]:
    """Tables of 1, 2, .. tokens, unknown ones left out; both ends of a sentence are blank_id.

    Raises InputError, one line that names file, line and fix, for anything else than an ARPA file
    over these symbols.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _Reader(path, file, symbols, blank_id).read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}): copy or make it again") from None


class _Reader:
    """Reads one file; `line` is what was read last, without blanks at its ends."""

    def __init__(
        self,
        path: Path,
        file: gzip.GzipFile | BufferedReader,
        symbols: Sequence[str],
        blank_id: int,
    ) -> None:
        self._path = path
        self._file = file
        self._blank_id = blank_id
        self._vocab_size = len(symbols)
        labels = {
            symbol.replace(WORD_START, "▁").encode(): i
            for i, symbol in enumerate(symbols)
            if i != blank_id and symbol != UNKNOWN
        }
        self._ids = labels | {START: blank_id, END: blank_id}
        self._number = 0
        self._unknown = LOG_ZERO
        self.line = b""

    def read(self) -> list[Table]:
        self._next()
        if self.line != b"\\data\\":
            raise self._wrong("no ARPA file: it begins with \\data\\")
        counts = self._read_counts()
        tables = [self._read_table(length, count) for length, count in enumerate(counts, 1)]
        if self.line != b"\\end\\":
            raise self._wrong("\\end\\ is missing: the file was cut short")
        return tables

    def _read_counts(self) -> list[int]:
        counts: list[int] = []
        self._next()
        while match := _COUNT.fullmatch(self.line):
            if int(match[1]) != len(counts) + 1:
                raise self._wrong(f"expected the count of {len(counts) + 1}-grams")
            counts.append(int(match[2]))
            self._next()
        if not counts or len(counts) > MAX_ORDER or sum(counts) > MAX_NGRAMS:
            raise self._wrong(
                f"{len(counts)} lengths and {sum(counts)} n-grams: 1 to {MAX_ORDER} lengths and "
                f"up to {MAX_NGRAMS} can be read"
            )
        if self._vocab_size ** len(counts) >= 2**62:
            raise self._wrong(f"{len(counts)}-grams of {self._vocab_size} tokens: take fewer")
        return counts

    def _read_table(self, length: int, count: int) -> Table:
        """The n-grams of one length, up to the line that begins the next."""
        if self.line != b"\\%d-grams:" % length:
            raise self._wrong(f"expected \\{length}-grams:")
        keys, log_probs, backoffs = array("q"), array("f"), array("f")
        num = 0
        self._next()
        while not self.line.startswith(b"\\"):
            num += 1
            if num > count:
                raise self._wrong(f"more than the {count} {length}-grams that \\data\\ counts")
            found = self._read_ngram(length)
            if found:
                keys.append(found[0])
                log_probs.append(found[1])
                backoffs.append(found[2])
            self._next()
        if num != count:
            raise self._wrong(f"{num} {length}-grams where \\data\\ counts {count}")
        in_nats = [(np.array(column) * NATS).astype(np.float32) for column in (log_probs, backoffs)]
        return self._finish(length, np.array(keys, dtype=np.int64), *in_nats)

    def _read_ngram(self, length: int) -> tuple[int, float, float] | None:
        """Key, log10 P and log10 backoff of the line; None for one with an unknown token."""
        fields = self.line.split()
        if len(fields) not in (length + 1, length + 2):
            raise self._wrong(f"{len(fields)} fields in a {length}-gram")
        words = fields[1 : length + 1]
        log_prob = self._read_number(fields[0])
        backoff = self._read_number(fields[-1]) if len(fields) == length + 2 else 0.0
        if log_prob > 0:
            raise self._wrong(f"a probability above 1: log10 is {log_prob:g}")
        if START in words[1:] or END in words[:-1]:
            raise self._wrong("<s> stands first in an n-gram and </s> last")
        if any(word in UNKNOWNS for word in words):
            self._unknown = log_prob if length == 1 else self._unknown
            return None
        key = 0
        for word in words:
            if word not in self._ids:
                raise self._wrong(self._describe(word))
            key = key * self._vocab_size + self._ids[word]
        return key, log_prob, backoff

    def _finish(
        self,
        length: int,
        keys: KeyArray,
        log_probs: FloatArray,
        backoffs: FloatArray,
    ) -> Table:
        """Sorted; of single tokens all, those that the file lacks as likely as unknown ones."""
        if length == 1:
            return self._finish_unigrams(keys, log_probs, backoffs)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        if (np.diff(keys) == 0).any():
            raise self._wrong(f"a {length}-gram is there twice")
        return Table(keys, log_probs[order].astype(np.float32), backoffs[order].astype(np.float32))

    def _finish_unigrams(
        self,
        keys: KeyArray,
        log_probs: FloatArray,
        backoffs: FloatArray,
    ) -> Table:
        """<s> brings its backoff and </s> its probability to the row that they share."""
        repeats = np.bincount(keys, minlength=self._vocab_size)
        repeats[self._blank_id] -= 1
        if (repeats > 1).any():
            raise self._wrong("a token is there twice")
        all_log_probs = np.full(self._vocab_size, self._unknown * NATS, dtype=np.float32)
        all_backoffs = np.zeros(self._vocab_size, dtype=np.float32)
        order = np.argsort(log_probs, kind="stable")  # of the shared row the larger stays
        all_log_probs[keys[order]] = log_probs[order]
        np.add.at(all_backoffs, keys, backoffs.astype(np.float32))
        return Table(np.arange(self._vocab_size), all_log_probs, all_backoffs)

    def _read_number(self, field: bytes) -> float:
        try:
            number = float(field)
        except ValueError:
            raise self._wrong(f"{field[:20]!r} is no number") from None
        if field.lower() == b"-inf":
            return LOG_ZERO
        if not math.isfinite(number) or abs(number) > 1000:
            raise self._wrong(f"{field[:20]!r} is no log10 of a probability")
        return max(number, LOG_ZERO)

    def _next(self) -> None:
        """The next line that is not empty, in `line`; empty at the end of the file."""
        while raw := self._file.readline(MAX_LINE_BYTES + 1):
            self._number += 1
            if len(raw) > MAX_LINE_BYTES or self._number > MAX_LINES:
                raise self._wrong("too long a line or too many: no ARPA file")
            self.line = raw.strip(b" \t\r\n")
            if self.line:
                return
        self.line = b"\\"  # so that the reader of n-grams stops

    def _describe(self, word: bytes) -> str:
        text = word.decode("utf-8", "replace")[:40]
        return (
            f"the token {text!r} is not in the bundle's vocabulary: make the language model over "
            "the bundle's pieces, as compress train-lm does"
        )

    def _wrong(self, reason: str) -> InputError:
        return InputError(f"{self._path}:{self._number}: {reason}")
