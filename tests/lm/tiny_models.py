"""Small language models and the sentences they were made of."""

from __future__ import annotations

import numpy as np
import torch

from compress.lm.config import LstmConfig, NgramConfig
from compress.lm.lstm import LstmModel, LstmNetwork
from compress.lm.ngram import NgramModel

SHA = "0123456789abcdef" * 4
VOCAB_SIZE = 7


def random_sentences(num: int, seed: int = 0) -> list[list[int]]:
    """Label 6 never comes; some sentences are shorter than any order."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, size=num)
    return [rng.choice([2, 2, 2, 3, 3, 4, 5], size=length).tolist() for length in lengths]


def stream(sentences: list[list[int]]) -> np.ndarray:
    return np.array([0] + [token for sentence in sentences for token in [*sentence, 0]], np.int32)


def tiny_ngram(sentences=None, order=3, vocab_size=VOCAB_SIZE) -> NgramModel:
    sentences = random_sentences(60) if sentences is None else sentences
    config = NgramConfig(vocab_size=vocab_size, order=order)
    return NgramModel.train([stream(sentences)], config, SHA)


def tiny_lstm(seed: int = 0, layers: int = 2) -> LstmModel:
    torch.manual_seed(seed)
    config = LstmConfig(vocab_size=VOCAB_SIZE, width=8, layers=layers)
    return LstmModel(config, LstmNetwork(config), SHA)


MODELS = {"ngram": tiny_ngram, "lstm": tiny_lstm}
