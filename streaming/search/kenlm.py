"""KenLM's binary files, through the library of the same name where it is installed.

The library maps the file into memory and believes what it says: open only files of one's own. An
.arpa is read by our own reader (arpa.py), which believes nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streaming.errors import InputError
from streaming.features import FloatArray
from streaming.search.arpa import END, NATS
from streaming.tokens import UNKNOWN, WORD_START

MAGIC = b"mmap lm http://kheafield.com/code"


def is_kenlm(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class KenlmEvents:
    """Events (ngram.py) of a model that the library holds. V calls a context: some 0.1 ms."""

    def __init__(self, path: Path, symbols: Sequence[str], blank_id: int) -> None:
        self._library = _import_library(path)
        try:
            self._model = self._library.Model(str(path))
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{path}: kenlm cannot load it ({reason}): build it again") from None
        self.order: int = self._model.order
        self._words = [symbol.replace(WORD_START, "▁") for symbol in symbols]
        self._words[blank_id] = END.decode()
        self._blank_id = blank_id
        if not any(w in self._model for w in self._words if w not in (END.decode(), UNKNOWN)):
            raise InputError(
                f"{path}: none of the bundle's tokens is in it: make the language model over the "
                "bundle's pieces, as compress train-lm does"
            )

    def __call__(self, context: tuple[int, ...]) -> FloatArray:
        state = self._hear(context)
        after = self._library.State()
        scores = [self._model.BaseScore(state, word, after) for word in self._words]
        return (np.array(scores) * NATS).astype(np.float32)

    def _hear(self, context: tuple[int, ...]) -> Any:
        """KenLM's state after a context; the blank's id is the start of a sentence."""
        state = self._library.State()
        if context and context[0] == self._blank_id:
            self._model.BeginSentenceWrite(state)
            context = context[1:]
        else:
            self._model.NullContextWrite(state)
        for label in context:
            after = self._library.State()
            self._model.BaseScore(state, self._words[label], after)
            state = after
        return state


def _import_library(path: Path) -> Any:
    try:
        import kenlm
    except ModuleNotFoundError:
        raise InputError(
            f"{path} is KenLM's binary: pip install kenlm, or give the .arpa it was made of"
        ) from None
    return kenlm
