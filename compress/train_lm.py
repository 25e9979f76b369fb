"""`compress train-lm`: a language model over the tokens of a model folder."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from compress.atomic import write_json
from compress.claim import claim_folder
from compress.data import grammar
from compress.data.sets import real_cuts
from compress.data.tokenizer import Tokenizer
from compress.lm import LstmModel, NgramModel, fingerprint, save_lm
from compress.lm.arpa import write_arpa
from compress.lm.config import LstmConfig, NgramConfig
from compress.lm.corpus import Corpus, Sentence, encode_corpus, read_sentences
from compress.lm.kneser_ney import check_order
from compress.lm.lstm import LstmNetwork
from compress.lm.perplexity import judge
from compress.lm.training import SentenceSampler, train_network
from compress.progress import say
from compress.trainer import TrainSettings
from streaming.errors import InputError

GRAMMAR_SENTENCES = 20_000


@dataclass(frozen=True)
class LmSettings:
    """kind: ngram or lstm. `order` is the n-gram's; steps, width and layers are the LSTM's.

    Raises InputError for a value out of its range.
    """

    kind: str = "ngram"
    order: int = 4
    steps: int = 2000
    width: int = 192
    layers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("ngram", "lstm"):
            raise InputError(f"no language model {self.kind!r}: --kind is ngram or lstm")
        ranges = {"order": (2, 5), "steps": (1, 10**7), "width": (1, 4096), "layers": (1, 2)}
        for name, (low, high) in {**ranges, "seed": (0, 2**31)}.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"--{name} is {value}: give {low} to {high}")

    @property
    def optimiser(self) -> TrainSettings:
        return TrainSettings(
            steps=self.steps, learning_rate=1e-2, warmup_steps=100, clip_norm=1.0, seed=self.seed
        )


def train_lm(
    settings: LmSettings,
    tokenizer_from: Path,
    text: list[Path],
    data: list[str],
    out: Path,
    resume: bool = False,
) -> dict[str, Any]:
    """Train on text files and on the transcripts of packs' train splits; returns the record.

    tokenizer_from: a model folder (its bpe.model) or a bpe.model. Without text and data it is the
    built-in grammar. A finished folder is not trained again. Raises InputError for wrong input.
    """
    tokenizer = load_tokenizer(tokenizer_from)
    check_order(settings.order, tokenizer.vocab_size)
    claim_folder(describe(settings, tokenizer, text, data), out, resume)
    if (out / "record.json").exists():
        finished: dict[str, Any] = json.loads((out / "record.json").read_text())
        return finished
    started = time.monotonic()
    with closing(read_texts(text, data, settings.seed)) as sentences:
        corpus = encode_corpus(sentences, tokenizer, out / "corpus")
    lm, seconds = fit(settings, tokenizer, corpus, out / "training", resume)
    record = {
        "settings": asdict(settings),
        "tokenizer_sha256": lm.tokenizer_sha256,
        "text": [path.name for path in text],
        "data": [Path(spec).name for spec in data],
        "sentences": len(corpus.train),
        "tokens": len(corpus.train.tokens) - len(corpus.train) - 1,
        "words": int(corpus.train.records["words"].sum(dtype="int64")),
        "parameters": sum(part.numel() for part in lm.tensors().values()),
        "training_seconds": round(seconds, 2),
        "perplexity": {name: asdict(found) for name, found in judge(lm, corpus).items()},
        "seconds": round(time.monotonic() - started, 2),
    }
    save_lm(lm, out)
    if isinstance(lm, NgramModel):
        write_arpa(lm, tokenizer.tokens(), out / "lm.arpa")
    write_json(out / "record.json", record)
    shutil.rmtree(out / "corpus")
    return record


def load_tokenizer(path: Path) -> Tokenizer:
    file = path / "bpe.model" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file} does not exist: --tokenizer is a model folder or its bpe.model")
    return Tokenizer.load(file)


def describe(
    settings: LmSettings, tokenizer: Tokenizer, text: list[Path], data: list[str]
) -> dict[str, Any]:
    """What determines the result, as the folder's config.yaml keeps it; a text by its size."""
    for path in text:
        if not path.is_file():
            raise InputError(f"{path} is no file: --text is a text file, one sentence on each line")
    return {
        "settings": asdict(settings),
        "tokenizer_sha256": fingerprint(tokenizer),
        "text": {str(path.resolve()): path.stat().st_size for path in text},
        "data": [str(Path(spec).resolve()) for spec in data],
    }


def read_texts(text: list[Path], data: list[str], seed: int) -> Generator[Sentence]:
    """Normalised sentences of all sources, one after another."""
    for path in text:
        yield from read_sentences(path)
    for spec in data:
        for cut in real_cuts(spec, "train"):
            yield Sentence(f"{spec}, utterance {cut.id}", cut.supervisions[0].text)
    if not text and not data:
        for number, sentence in enumerate(grammar.sentences(GRAMMAR_SENTENCES, seed)):
            yield Sentence(f"grammar, sentence {number}", sentence)


def fit(
    settings: LmSettings, tokenizer: Tokenizer, corpus: Corpus, folder: Path, resume: bool
) -> tuple[NgramModel | LstmModel, float]:
    """The trained model, and the seconds that took."""
    sha256, vocab_size = fingerprint(tokenizer), tokenizer.vocab_size
    say(f"train-lm: {settings.kind} on {len(corpus.train)} sentences")
    if settings.kind == "ngram":
        started = time.monotonic()
        ngram = NgramConfig(vocab_size=vocab_size, order=settings.order)
        return NgramModel.train(corpus.train.chunks(), ngram, sha256), time.monotonic() - started
    lstm = LstmConfig(vocab_size=vocab_size, width=settings.width, layers=settings.layers)
    torch.manual_seed(settings.seed)
    network = LstmNetwork(lstm)
    sampler = SentenceSampler(corpus.train, settings.seed)
    seconds = train_network(network, sampler, settings.optimiser, folder, resume)
    return LstmModel(lstm, network, sha256), seconds
