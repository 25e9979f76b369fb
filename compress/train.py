"""`compress train`: a transducer from nothing, by a recipe's curriculum."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch

from compress.checkpoint import load_state, save_model
from compress.config import RealRecipe, TrainRecipe
from compress.curriculum import CurriculumStage
from compress.data import grammar
from compress.data.batches import BatchSampler, Source
from compress.data.cuts import read_data
from compress.data.join import join_cuts
from compress.data.noise import Augmenter
from compress.data.store import FeatureStore, build_store
from compress.data.synthetic import make_synthetic
from compress.data.tokenizer import Tokenizer, train_tokenizer
from compress.evaluate import evaluate
from compress.progress import say
from compress.trainer import train

TOKENIZER_SENTENCES = 20_000


def cache_folder() -> Path:
    """Where synthetic speech and features are kept: $COMPRESS_CACHE or ~/.cache/compress."""
    default = Path.home() / ".cache" / "compress-transducer"
    return Path(os.environ.get("COMPRESS_CACHE", default))


def synthetic_store(
    num_utterances: int, split: str, seed: int, augmenter: Augmenter | None = None
) -> FeatureStore:
    """Features of synthetic speech, from the cache if it was made before."""
    cuts = make_synthetic(cache_folder() / "synthetic", num_utterances, split, seed)
    return build_store(cache_folder(), f"synthetic-{split}", list(cuts), augmenter, seed=seed)


def real_store(spec: str, recipe: RealRecipe, augmenter: Augmenter, seed: int) -> FeatureStore:
    """Training split of one pack, each clip heard several times, clips joined into strings too."""
    cuts = list(read_data(spec, "train"))
    short = [cut for cut in cuts if " " not in cut.supervisions[0].text]
    joined = join_cuts(short, recipe.joined, recipe.words_range, seed) if short else []
    name = f"{Path(spec).name}-train"
    return build_store(cache_folder(), name, [*cuts, *joined], augmenter, recipe.copies, seed)


def test_store(spec: str, split: str) -> FeatureStore:
    return build_store(cache_folder(), f"{Path(spec).name}-{split}", list(read_data(spec, split)))


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
        store = real_store(spec, recipe.real, augmenter, recipe.seed)
        sources.append(Source(store, recipe.real.share, recipe.real.from_step))
    sets = {"synthetic/test": synthetic_store(recipe.synthetic.test, "test", recipe.seed)}
    sets |= {f"{Path(spec).name}/test": test_store(spec, "test") for spec in data}

    tokenizer = train_tokenizer(
        grammar.sentences(TOKENIZER_SENTENCES, recipe.seed), recipe.vocab_size
    )
    stage = build_stage(recipe, tokenizer, synthetic)
    sampler = BatchSampler(sources, tokenizer, recipe.batches, recipe.seed)
    train(stage, sampler, recipe.settings, out / "training", "training", resume)
    seconds = load_state(out / "training" / "checkpoint.pt")["seconds"]

    rates = evaluate(stage.transducer, sets, tokenizer)
    record = {
        "recipe": json.loads(recipe.model_dump_json()),
        "recipe_sha256": hashlib.sha256(recipe.model_dump_json().encode()).hexdigest(),
        "data": ["synthetic", *(Path(spec).name for spec in data)],
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
