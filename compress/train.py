"""`compress train`: a transducer from nothing, by a recipe's curriculum."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch

from compress.checkpoint import load_state, save_model
from compress.config import TrainRecipe
from compress.curriculum import CurriculumStage
from compress.data import grammar
from compress.data.batches import BatchSampler, Source
from compress.data.noise import Augmenter
from compress.data.sets import check_texts, real_store, set_name, synthetic_store, train_store
from compress.data.store import FeatureStore
from compress.data.tokenizer import Tokenizer, train_tokenizer
from compress.evaluate import evaluate
from compress.progress import say
from compress.trainer import train

TOKENIZER_SENTENCES = 20_000


def train_recipe(
    recipe: TrainRecipe, data: list[str], noise: Path | None, out: Path, resume: bool
) -> dict[str, object]:
    """Train, evaluate and write a model folder at `out`; returns its record.

    data: packs whose train split joins the synthetic speech; their test splits are evaluated.
    """
    augmenter = Augmenter(noise)
    say("making synthetic speech and features (cached)")
    synthetic = synthetic_store(recipe.synthetic.train, "train", recipe.seed, augmenter)
    sources = [Source(synthetic, recipe.synthetic.share)]
    for spec in data:
        hear = recipe.real.model_dump(include={"copies", "joined", "words_range"})
        store = train_store(spec, augmenter, recipe.seed, **hear)
        sources.append(Source(store, recipe.real.share, recipe.real.from_step))
    sets = {"synthetic/test": synthetic_store(recipe.synthetic.test, "test", recipe.seed)}
    sets |= {f"{set_name(spec)}/test": real_store(spec, "test") for spec in data}

    tokenizer = train_tokenizer(
        grammar.sentences(TOKENIZER_SENTENCES, recipe.seed), recipe.vocab_size
    )
    for source in sources:
        check_texts(source.store, tokenizer)
    stage = build_stage(recipe, tokenizer, synthetic)
    sampler = BatchSampler(sources, tokenizer, recipe.batches, recipe.seed)
    train(stage, sampler, recipe.settings, out / "training", "training", resume)
    seconds = load_state(out / "training" / "checkpoint.pt")["seconds"]

    rates = evaluate(stage.transducer, sets, tokenizer)
    record = {
        "recipe": json.loads(recipe.model_dump_json()),
        "recipe_sha256": hashlib.sha256(recipe.model_dump_json().encode()).hexdigest(),
        "data": ["synthetic", *map(set_name, data)],
        "noise": noise.name if noise else None,
        "seed": recipe.seed,
        "steps": recipe.settings.steps,
        "training_hours": round(seconds / 3600, 2),
        "audio_hours": round(sum(source.store.seconds for source in sources) / 3600, 2),
        "parameters": stage.transducer.num_parameters,
        "wer": {name: asdict(rate) for name, rate in rates.items()},
    }
    save_model(stage.transducer, out, tokenizer, record, half=True)
    for name, rate in rates.items():
        say(f"{name}: WER {rate}")
    return record


def build_stage(
    recipe: TrainRecipe, tokenizer: Tokenizer, normalisation: FeatureStore
) -> CurriculumStage:
    """The network with its first weights and the data's statistics in its front end."""
    torch.manual_seed(recipe.seed)
    stage = CurriculumStage(recipe.model.build(tokenizer.vocab_size), recipe.phases)
    mean, deviation = normalisation.statistics()
    stage.transducer.encoder.front.set_normalisation(
        torch.from_numpy(mean), torch.from_numpy(deviation)
    )
    return stage
