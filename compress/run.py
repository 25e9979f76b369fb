"""What the stages of a run share: its teacher, its data, and where each stage left its result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.bundle import networks
from compress.checkpoint import load_model
from compress.config import RunConfig
from compress.data.augment import AugmentSettings
from compress.data.batches import BatchSampler, Source
from compress.data.cuts import read_samples
from compress.data.noise import Augmenter
from compress.data.sets import (
    check_sources,
    cuts_to_judge,
    has_split,
    real_store,
    set_name,
    synthetic_store,
    train_store,
)
from compress.data.store import FeatureStore
from compress.data.tokenizer import Tokenizer
from compress.distill.lessons import check_lessons
from compress.evaluate import decode_store, evaluate, word_error_rate
from compress.models.transducer import Transducer, check_same_features
from compress.progress import say
from compress.shrink.candidate import cut_at_once
from compress.sizing import Fitted, fit_sparsity
from streaming.errors import InputError
from streaming.features import FeatureSettings, FloatArray

if TYPE_CHECKING:
    from lhotse.cut import Cut

TIMED_UTTERANCES = 8  # of all test sets, that real-time factors are measured on


@dataclass
class Run:
    """config and folder; all else is made from them when a stage first asks for it."""

    config: RunConfig
    folder: Path

    @cached_property
    def teacher(self) -> Transducer:
        return self._teacher[0]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return self._teacher[1]

    @property
    def features(self) -> FeatureSettings:
        """What teacher and student hear."""
        return self.teacher.config.encoder.feature_settings

    @cached_property
    def _teacher(self) -> tuple[Transducer, Tokenizer]:
        return load_model(self.config.teacher)

    def check(self) -> None:
        """Refuse a teacher, layout or data that cannot be used, before anything is written."""
        networks(self.teacher)
        student = self.untrained(0.0 if self.config.target else self.config.sparsity)
        check_same_features(self.teacher, student.config)
        tokenizers = self.tokenizer, self.tokenizer
        check_lessons(self.config.recipe.lessons, self.teacher, student, tokenizers)
        assert all(self.test_cuts.values()), "a set without utterances is refused when it is read"

    def fit_target(self, utterances: Sequence[FloatArray] = ()) -> Fitted:
        """The sparsity that meets the target, which is timed on `utterances`, else on noise."""
        config = self.config
        assert config.target
        tail_frames = config.recipe.batches.tail_frames
        model = self.teacher, self.tokenizer
        return fit_sparsity(
            *model, config.cut(), config.target, config.trial_method, tail_frames, utterances
        )

    def untrained(self, sparsity: float) -> Transducer:
        """The student's layout before any training. Raises InputError for what has none."""
        recipe = self.config.recipe
        vocab_size = self.teacher.config.vocab_size
        given = recipe.student.build(vocab_size) if recipe.student else None
        return cut_at_once(self.teacher, self.config.cut(), sparsity, given, recipe.seed)

    @cached_property
    def sources(self) -> list[Source]:
        """Training data: the packs of --data, or synthetic speech."""
        recipe = self.config.recipe
        noise = Path(self.config.noise) if self.config.noise else None
        augmenter = Augmenter(noise, AugmentSettings(**recipe.augment.model_dump()))
        hear = recipe.real.model_dump(include={"copies", "joined", "words_range"})
        hear["features"] = self.features
        stores = [train_store(spec, augmenter, recipe.seed, **hear) for spec in self.config.data]
        new = self.config.pattern == "small"
        from_step = recipe.warm_up.steps(recipe.steps) if new else 0
        sources = [Source(store, store.seconds, from_step) for store in stores]
        if new or not stores:  # a new network learns its first phones from synthetic speech
            num = recipe.synthetic.train
            store = synthetic_store(num, "train", recipe.seed + 1, augmenter, self.features)
            sources.append(Source(store, store.seconds))
        return check_sources(sources, self.tokenizer, recipe.batches.tail_frames)

    @cached_property
    def test_cuts(self) -> dict[str, list[Cut]]:
        """Held-out utterances by set: other speakers than any that was trained on."""
        recipe = self.config.recipe
        return cuts_to_judge(self.config.data, recipe.synthetic.test, recipe.seed)

    def some_speech(self) -> list[FloatArray]:
        """Samples of a few utterances of every test set, to be timed by."""
        samples = []
        for cuts in self.test_cuts.values():
            step = max(1, len(cuts) * len(self.test_cuts) // TIMED_UTTERANCES)
            samples += [read_samples(cut) for cut in cuts[::step]]
        return samples

    @cached_property
    def test_sets(self) -> dict[str, FeatureStore]:
        recipe = self.config.recipe
        if not self.config.data:
            num = recipe.synthetic.test
            store = synthetic_store(num, "test", recipe.seed, features=self.features)
            return {"synthetic/test": store}
        data = self.config.data
        return {f"{set_name(spec)}/test": real_store(spec, "test", self.features) for spec in data}

    @cached_property
    def dev_sets(self) -> list[FeatureStore]:
        """Speech that settles choices and judges nothing; packs without a dev split have none."""
        recipe = self.config.recipe
        if not self.config.data:
            num = recipe.synthetic.dev
            return [synthetic_store(num, "dev", recipe.seed, features=self.features)]
        with_dev = [spec for spec in self.config.data if has_split(spec, "dev")]
        return [real_store(spec, "dev", self.features) for spec in with_dev]

    def dev_wer(self, model: Transducer, num_utterances: int) -> float:
        """WER on evenly spaced utterances of the development speech."""
        if not self.dev_sets:
            raise InputError("guard needs development speech: data with a dev split")
        said, heard = [], []
        for store in self.dev_sets:
            share = max(1, num_utterances // len(self.dev_sets))
            few = store.rows[:: max(1, len(store.rows) // share)]
            references, hypotheses = decode_store(model, store, self.tokenizer, few)
            said += references
            heard += hypotheses
        return word_error_rate(said, heard).wer

    @property
    def sampler(self) -> BatchSampler:
        recipe = self.config.recipe
        return BatchSampler(
            self.sources, self.tokenizer, recipe.batches, recipe.seed, augment=False
        )

    def measure_wer(self, model: Transducer) -> dict[str, Any]:
        rates = evaluate(model, self.test_sets, self.tokenizer)
        for name, rate in rates.items():
            say(f"  {name}: WER {rate}")
        return {name: asdict(rate) for name, rate in rates.items()}

    def result(self, stage: str) -> dict[str, Any]:
        """What a finished stage left in its done.json."""
        done: dict[str, Any] = json.loads((self.folder / stage / "done.json").read_text())
        return done["result"]
