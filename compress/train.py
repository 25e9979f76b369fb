"""`compress train`: a transducer from nothing by a recipe's curriculum, or a student of a teacher.

A student is a new network with its teacher's tokenizer; it learns from transcripts and from the
lessons of its recipe (distill/lessons.py). `--init` starts it from the weights of another model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch

from compress.checkpoint import load_model, load_state, save_model
from compress.config import TrainRecipe
from compress.curriculum import CurriculumStage
from compress.data import grammar
from compress.data.augment import AugmentSettings
from compress.data.batches import BatchSampler, Source
from compress.data.noise import Augmenter
from compress.data.sets import (
    check_sources,
    real_store,
    set_name,
    synthetic_store,
    train_store,
)
from compress.data.store import FeatureStore
from compress.data.tokenizer import Tokenizer, train_tokenizer
from compress.distill.lessons import Lesson
from compress.distill.setup import build_teaching
from compress.evaluate import evaluate
from compress.models.transducer import Transducer, check_same_features
from compress.progress import say
from compress.trainer import train
from streaming.errors import InputError
from streaming.features import FeatureSettings

TOKENIZER_SENTENCES = 20_000


@dataclass
class Training:
    """One `compress train`: its recipe, data and models."""

    recipe: TrainRecipe
    data: list[str]
    noise: Path | None
    out: Path
    teacher_folder: Path | None = None
    init_folder: Path | None = None

    @cached_property
    def lessons(self) -> list[Lesson]:
        lessons = self.recipe.lessons
        if (lessons or self.recipe.tandem != "none") and not self.teacher_folder:
            raise InputError("the recipe distils: give --student with --teacher, or distill: none")
        return lessons

    @cached_property
    def teacher(self) -> tuple[Transducer, Tokenizer] | None:
        return load_model(self.teacher_folder) if self.teacher_folder else None

    @cached_property
    def init(self) -> tuple[Transducer, Tokenizer] | None:
        return load_model(self.init_folder) if self.init_folder else None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The starting point's, else the teacher's, else one made for the grammar."""
        if self.init:
            return self.init[1]
        if self.teacher:
            return self.teacher[1]
        if not self.recipe.vocab_size:
            raise InputError("the recipe has no vocab_size: give one, or a teacher by --student")
        sentences = grammar.sentences(TOKENIZER_SENTENCES, self.recipe.seed)
        return train_tokenizer(sentences, self.recipe.vocab_size)

    @cached_property
    def features(self) -> FeatureSettings:
        """What the network hears. Raises InputError when its teacher, or --init, hears another."""
        config = self.recipe.model.build(self.tokenizer.vocab_size)
        for other in filter(None, (self.teacher, self.init)):
            check_same_features(other[0], config)
        return config.encoder.feature_settings

    @cached_property
    def sources(self) -> list[Source]:
        """Synthetic speech if the recipe has some, then the packs of --data."""
        recipe = self.recipe
        augmenter = Augmenter(self.noise, AugmentSettings(**recipe.augment.model_dump()))
        sources = []
        if recipe.synthetic:
            num = recipe.synthetic.train
            store = synthetic_store(num, "train", recipe.seed, augmenter, self.features)
            sources.append(Source(store, recipe.synthetic.share))
        hear = recipe.real.model_dump(include={"copies", "joined", "words_range"})
        for spec in self.data:
            store = train_store(spec, augmenter, recipe.seed, features=self.features, **hear)
            sources.append(Source(store, recipe.real.share, recipe.real.from_step))
        if not sources:
            raise InputError("nothing to train on: give --data, or synthetic in the recipe")
        return check_sources(sources, self.tokenizer, recipe.batches.tail_frames)

    @cached_property
    def test_sets(self) -> dict[str, FeatureStore]:
        heard = self.features
        sets = {f"{set_name(spec)}/test": real_store(spec, "test", heard) for spec in self.data}
        synthetic = self.recipe.synthetic
        if not synthetic:
            return sets
        store = synthetic_store(synthetic.test, "test", self.recipe.seed, features=heard)
        return {"synthetic/test": store} | sets

    @cached_property
    def sampler(self) -> BatchSampler:
        """Masked features for a network alone, as they are for one that a teacher has heard."""
        masked = not self.lessons
        batches = self.recipe.batches
        return BatchSampler(self.sources, self.tokenizer, batches, self.recipe.seed, masked)


def train_recipe(training: Training, resume: bool) -> dict[str, object]:
    """Train, evaluate and write a model folder at training.out; returns its record."""
    recipe, out = training.recipe, training.out
    say("making features (cached)")
    sampler = training.sampler
    stage = build_stage(training)
    train(stage, sampler, recipe.settings, out / "training", "training", resume)
    finished = load_state(out / "training" / "checkpoint.pt")

    rates = evaluate(stage.student, training.test_sets, training.tokenizer)
    synthetic = ["synthetic"] if recipe.synthetic else []
    record = {
        "recipe": json.loads(recipe.model_dump_json()),
        "recipe_sha256": hashlib.sha256(recipe.model_dump_json().encode()).hexdigest(),
        "teacher": training.teacher_folder.name if training.teacher_folder else None,
        "data": [*synthetic, *map(set_name, training.data)],
        "noise": training.noise.name if training.noise else None,
        "seed": recipe.seed,
        "steps": recipe.settings.steps,
        "bfloat16": finished.get("bfloat16", True),  # earlier checkpoints lack it
        "training_hours": round(finished["seconds"] / 3600, 2),
        "audio_hours": round(sum(source.store.seconds for source in sampler.sources) / 3600, 2),
        "parameters": stage.student.num_parameters,
        "wer": {name: asdict(rate) for name, rate in rates.items()},
    }
    save_model(stage.student, out, training.tokenizer, record, half=True)
    for name, rate in rates.items():
        say(f"{name}: WER {rate}")
    return record


def build_stage(training: Training) -> CurriculumStage:
    """The network with its first weights and the data's statistics in its front end."""
    recipe = training.recipe
    torch.manual_seed(recipe.seed)
    config = recipe.model.build(training.tokenizer.vocab_size)
    stage = CurriculumStage(config, recipe.phases, recipe.chunk_draw)
    mean, deviation = training.sources[0].store.statistics()
    stage.student.encoder.front.set_normalisation(
        torch.from_numpy(mean), torch.from_numpy(deviation)
    )
    if training.init:
        load_first_weights(stage.student, training.init[0], training.init_folder)
    if training.teacher:
        stage.model.teaching = build_teaching(
            training.lessons,
            recipe.tandem,
            training.teacher,
            (stage.student, training.tokenizer),
            training.sampler,
            training.out / "targets",
        )
    return stage


def load_first_weights(student: Transducer, init: Transducer, folder: Path | None) -> None:
    """The weights of `init`, out of `folder`. Raises InputError naming a shape that differs."""
    weights = init.state_dict()
    for name, tensor in student.state_dict().items():
        if name not in weights or weights[name].shape != tensor.shape:
            has = tuple(weights[name].shape) if name in weights else "nothing"
            raise InputError(
                f"{folder} does not fit the recipe's model: {name} is {has}, the recipe wants "
                f"{tuple(tensor.shape)}: change the recipe, or leave --init out"
            )
    student.load_state_dict({name: weights[name] for name in student.state_dict()})
