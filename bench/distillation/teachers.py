"""The teachers of the benchmark, each a model folder, and the students' first weights.

    demo   the built-in streaming Conformer
    full   demo going on with full context: every frame hears the whole utterance
    lstm   an LSTM as large, from synthetic speech, then taught by demo
    bad    demo with noise on its weights, and too little blank

A student starts from weights that learnt phones and labels from synthetic speech without any
teacher, the same for all cells of a seed: from nothing, thousands of steps go by before a
transducer says a word (docs/decisions/0007-curriculum.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from compress.checkpoint import load_model, save_model
from compress.config import ConformerRecipe, LstmRecipe
from compress.curriculum import CurriculumStage, Phase
from compress.data.batches import BatchSampler, BatchSettings, Source
from compress.data.sets import synthetic_store
from compress.data.tokenizer import Tokenizer
from compress.distill.lessons import parse_distill
from compress.distill.setup import build_teaching
from compress.models.predictors import BLANK
from compress.models.transducer import Transducer
from compress.trainer import TrainSettings, train
from distillation.data import Hearing, augmenter_of, choose_cuts, train_sources

DEMO = Path(__file__).resolve().parents[2] / "compress" / "assets" / "demo-teacher"
NOISE_OF_BAD = 0.5  # standard deviations of each matrix
TALKATIVE = 5.0  # nats off blank's bias: it errs by wrong words, not by silence
JOINT = 64
STUDENTS = {
    "stream": ConformerRecipe(
        num_layers=4, width=64, num_heads=4, feed_forward=256, joint_width=JOINT
    ),
    "wide": ConformerRecipe(  # demo's joint width, so that a decoder can be shared
        num_layers=3, width=64, num_heads=4, feed_forward=256, joint_width=256
    ),
    "lstm": LstmRecipe(num_layers=3, width=128, joint_width=JOINT),
    "lstm-teacher": LstmRecipe(num_layers=4, width=384, joint_width=256),
}


@dataclass(frozen=True)
class Schooling:
    """Steps of each preparation, audio seconds a step, utterances of synthetic speech."""

    start: tuple[int, int, int] = (1200, 800, 500)  # phones, CTC, transducer
    teacher: int = 300
    lstm: int = 2000
    seconds: float = 20.0
    synthetic: int = 14_000
    hearing: Hearing = Hearing(3, 1000)  # noqa: RUF009  frozen


def make_teacher(name: str, folder: Path, packs: Path, schooling: Schooling) -> Path:
    """The folder of a teacher, trained once."""
    if name == "demo":
        return DEMO
    out = folder / name
    if not (out / "config.json").exists():
        torch.set_num_threads(1)
        demo, tokenizer = load_model(DEMO)
        model = TEACHERS[name](demo, tokenizer, packs, schooling, out)
        save_model(model.eval(), out, tokenizer, {"teacher": name}, half=True)
    return out


def full(demo, tokenizer, packs, schooling, out) -> Transducer:
    encoder = demo.config.encoder.model_copy(update={"full_context": True})
    config = demo.config.model_copy(update={"encoder": encoder})
    stage = CurriculumStage(config, [Phase(steps=schooling.teacher, ctc=0.1, transducer=1.0)])
    stage.student.load_state_dict(demo.state_dict())
    sampler = sampler_of(recordings(packs, schooling), tokenizer, schooling.seconds, 0)
    settings = TrainSettings(schooling.teacher, 4e-4, warmup_steps=50)
    train(stage, sampler, settings, out / "training", "full", resume=True)
    return stage.student


def bad(demo, tokenizer, packs, schooling, out) -> Transducer:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in demo.parameters():
            if parameter.ndim > 1:
                parameter += NOISE_OF_BAD * parameter.std() * torch.randn_like(parameter)
        demo.joiner.output.bias[BLANK] -= TALKATIVE
    return demo


def lstm(demo, tokenizer, packs, schooling, out) -> Transducer:
    """Synthetic speech first, as students begin; then the recordings, taught by demo."""
    start, _ = load_model(make_start("lstm-teacher", 0, out.parent, packs, schooling))
    stage = CurriculumStage(start.config, [Phase(steps=schooling.lstm, ctc=0.1, transducer=1.0)])
    stage.student.load_state_dict(start.state_dict())
    settings = TrainSettings(schooling.lstm, 1.5e-3, warmup_steps=50)
    sampler = sampler_of(recordings(packs, schooling), tokenizer, schooling.seconds, 0)
    models = (demo, tokenizer), (stage.student, tokenizer)
    stage.model.teaching = build_teaching(
        parse_distill("occupancy=1"), "none", *models, sampler, out / "targets"
    )
    train(stage, sampler, settings, out / "training", "lstm", resume=True)
    return stage.student


TEACHERS = {"full": full, "lstm": lstm, "bad": bad}


def recordings(packs: Path, schooling: Schooling) -> list[Source]:
    return train_sources("all", choose_cuts(packs, "all"), packs, schooling.hearing)


def sampler_of(
    sources: list[Source], tokenizer: Tokenizer, seconds: float, seed: int
) -> BatchSampler:
    settings = BatchSettings(seconds=seconds)
    return BatchSampler(sources, tokenizer, settings, seed, augment=False)


def make_start(student: str, seed: int, folder: Path, packs: Path, schooling: Schooling) -> Path:
    """First weights of a student: the folder of a model that heard synthetic speech only."""
    out = folder / f"{student}-{seed}"
    if not (out / "config.json").exists():
        torch.set_num_threads(1)
        tokenizer = load_model(DEMO)[1]
        augmenter = augmenter_of(packs)
        synthetic = synthetic_store(schooling.synthetic, "train", 1, augmenter)
        phone, ctc, transducer = schooling.start
        phases = [
            Phase(steps=phone, phone=1.0),
            Phase(steps=ctc, phone=0.3, ctc=1.0),
            Phase(steps=transducer, ctc=0.1, transducer=1.0),
        ]
        torch.manual_seed(seed)
        stage = CurriculumStage(STUDENTS[student].build(tokenizer.vocab_size), phases)
        mean, deviation = synthetic.statistics()
        stage.student.encoder.front.set_normalisation(
            torch.from_numpy(mean), torch.from_numpy(deviation)
        )
        sampler = sampler_of([Source(synthetic)], tokenizer, schooling.seconds, seed)
        settings = TrainSettings(
            sum(schooling.start), 3e-3, warmup_steps=50, decay_from=0.8, seed=seed
        )
        settings = replace(settings, final_rate_share=0.3)
        train(stage, sampler, settings, out / "training", out.name, resume=True)
        save_model(stage.student, out, tokenizer, {"seed": seed})
    return out
