"""Language models over a teacher's SentencePiece tokens: `compress train-lm` makes them.

load_lm(folder) -> LanguageModel      NgramModel or LstmModel, by what config.json says
check_tokenizer(lm, tokenizer)        raises InputError when they do not belong together
"""

from __future__ import annotations

from compress.lm.files import load_lm, save_lm
from compress.lm.lstm import LstmModel
from compress.lm.model import LanguageModel, check_tokenizer, fingerprint
from compress.lm.ngram import NgramModel

__all__ = [
    "LanguageModel",
    "LstmModel",
    "NgramModel",
    "check_tokenizer",
    "fingerprint",
    "load_lm",
    "save_lm",
]
