"""SentencePiece, with blank as token 0 and the unknown token as 1."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from streaming.errors import InputError

BLANK_PIECE = "<blk>"
UNKNOWN_ID = 1


class Tokenizer:
    """Pieces of one SentencePiece model; `vocab_size` includes blank and unknown.

    Raises InputError, naming `origin`, for bytes that are no such model.
    """

    def __init__(self, model: bytes, origin: str = "bpe.model") -> None:
        self.model = model
        try:
            self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model or b"\0")
        except RuntimeError as error:
            raise InputError(f"{origin} is not a SentencePiece model: copy it again") from error
        first = self.pieces.id_to_piece(0)
        if first != BLANK_PIECE:
            raise InputError(
                f"token 0 of {origin} is {first!r}, not {BLANK_PIECE}: "
                "train it with pad_id=0, pad_piece=<blk>, unk_id=1"
            )

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        return cls(Path(path).read_bytes(), str(path))

    @property
    def vocab_size(self) -> int:
        return self.pieces.vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without blank."""
        return self.pieces.encode(text)

    def decode(self, tokens: Iterable[int]) -> str:
        return self.pieces.decode([token for token in tokens if token > UNKNOWN_ID])

    def tokens(self) -> list[str]:
        """The symbols of tokens.txt, in the order of their ids."""
        return [self.pieces.id_to_piece(index) for index in range(self.vocab_size)]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-pair model of `texts`; every letter a-z and the apostrophe gets a piece."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="bpe",
        character_coverage=1.0,
        required_chars="abcdefghijklmnopqrstuvwxyz'",
        pad_id=0,
        pad_piece=BLANK_PIECE,
        unk_id=UNKNOWN_ID,
        bos_id=-1,
        eos_id=-1,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    return Tokenizer(model.getvalue())
