"""Word error rates: greedy search in torch over a feature store, and the bootstrap interval.

# Letters: B utterances, T encoder frames, V tokens, J joint width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kaldialign
import torch
from torch import Tensor

from compress.checkpoint import load_model
from compress.data.batches import BatchSampler, BatchSettings, bucket
from compress.data.sets import cache_folder, cuts_to_judge, read_utterances
from compress.data.store import FeatureStore, Row, build_store
from compress.data.tokenizer import UNKNOWN_ID, Tokenizer
from compress.measure import decode_bundle
from compress.models.predictors import BLANK
from compress.models.transducer import Transducer

BOOTSTRAP_REPLICATIONS = 1000
# Labels a frame in sherpa-onnx's greedy search, by the features that name a bundle's target.
SYMBOLS_PER_FRAME = {"kaldi": 1, "nemo": 10}


@dataclass(frozen=True)
class WordErrorRate:
    """`wer`, `low`, `high` are fractions, 0.031 = 3.1 %; the interval is 95 %, over utterances."""

    wer: float
    low: float
    high: float
    words: int
    utterances: int

    def __str__(self) -> str:
        return f"{100 * self.wer:.2f} % [{100 * self.low:.2f}, {100 * self.high:.2f}]"


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> WordErrorRate:
    """Errors over reference words of all utterances, with kaldialign's seeded bootstrap."""
    words = [reference.split() for reference in references]
    heard = [hypothesis.split() for hypothesis in hypotheses]
    errors = sum(
        kaldialign.edit_distance(said, got)["total"] for said, got in zip(words, heard, strict=True)
    )
    total = sum(map(len, words))
    interval = kaldialign.bootstrap_wer_ci(
        words, heard, replications=BOOTSTRAP_REPLICATIONS, seed=0
    )
    return WordErrorRate(
        wer=errors / max(total, 1),
        low=max(0.0, interval["ci95min"]),
        high=interval["ci95max"],
        words=total,
        utterances=len(words),
    )


@torch.inference_mode()
def greedy_search(
    model: Transducer, features: Tensor, feature_lengths: Tensor, max_symbols_per_frame: int = 1
) -> list[list[int]]:
    """Tokens of each utterance: features (B, T, F); chunk mask on, so it equals streaming.

    At most `max_symbols_per_frame` labels a frame. <unk> counts as blank.
    """
    predictor = model.predictor
    encoded, logit_lengths = model.encoder(features, feature_lengths)
    start = torch.full((len(features),), BLANK, device=features.device)
    predicted, memory = predictor.step(start, predictor.empty_memory(len(features)))
    hypotheses: list[list[int]] = [[] for _ in range(len(features))]
    for t in range(encoded.shape[1]):
        active = logit_lengths > t
        for _ in range(max_symbols_per_frame):
            labels = model.joiner(encoded[:, t], predicted).argmax(-1)
            active = active & (labels != BLANK) & (labels != UNKNOWN_ID)
            if not active.any():
                break
            answer, after = predictor.step(labels, memory)
            predicted, *kept = (
                torch.where(active[:, None], new, old)
                for new, old in zip((answer, *after), (predicted, *memory), strict=True)
            )
            memory = tuple(kept)
            for row in active.nonzero().flatten().tolist():
                hypotheses[row].append(int(labels[row]))
    return hypotheses


def decode_store(
    model: Transducer,
    store: FeatureStore,
    tokenizer: Tokenizer,
    rows: list[Row] | None = None,
    settings: BatchSettings = BatchSettings(seconds=240.0),  # noqa: B008  frozen, no state shared
) -> tuple[list[str], list[str]]:
    """References and hypotheses of `rows`, all by default, in the store's order."""
    rows = store.rows if rows is None else rows
    sampler = BatchSampler([], tokenizer, settings, augment=False)
    max_symbols = SYMBOLS_PER_FRAME[model.config.encoder.features]
    was_training = model.training
    model.eval()
    texts: dict[str, str] = {}
    for batch_rows in bucket(rows, round(settings.seconds / 0.01)):
        batch = sampler.collate(store, batch_rows)
        found = greedy_search(model, batch.features, batch.feature_lengths, max_symbols)
        for row, tokens in zip(batch_rows, found, strict=True):
            texts[row.id] = tokenizer.decode(tokens)
    model.train(was_training)
    return [row.text for row in rows], [texts[row.id] for row in rows]


def evaluate(
    model: Transducer,
    sets: dict[str, FeatureStore],
    tokenizer: Tokenizer,
    max_utterances: int | None = None,
) -> dict[str, WordErrorRate]:
    """WER of each named set; with `max_utterances` on evenly spaced utterances of it."""
    rates = {}
    for name, store in sets.items():
        step = max(1, len(store.rows) // max_utterances) if max_utterances else 1
        rates[name] = word_error_rate(*decode_store(model, store, tokenizer, store.rows[::step]))
    return rates


def evaluate_any(
    path: Path, data: list[str], split: str, num_synthetic: int, precision: str | None
) -> dict[str, WordErrorRate]:
    """WER of a bundle, from audio, or of a model folder; on `data` or on synthetic speech."""
    cuts = cuts_to_judge(data, num_synthetic, split=split)
    if not (path / "bundle.json").exists():
        model, tokenizer = load_model(path)
        heard = model.config.encoder.feature_settings
        stores = {
            name: build_store(cache_folder(), name.replace("/", "-"), some, settings=heard)
            for name, some in cuts.items()
        }
        return evaluate(model, stores, tokenizer)
    rates = {}
    for name, some in cuts.items():
        utterances = read_utterances(some)
        texts = decode_bundle(path, utterances, precision).texts
        rates[name] = word_error_rate([text for _, _, text in utterances], texts)
    return rates
