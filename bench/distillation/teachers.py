"""The teachers of the benchmark, each a model folder, and the students' first weights.

    demo   the built-in streaming Conformer
    full   demo going on with full context: every frame hears the whole utterance
    lstm   an LSTM as large, taught by demo's hidden representations
    bad    demo with noise on its weights

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
from compress.models.transducer import Transducer
from compress.trainer import TrainSettings, train
from distillation.data import augmenter_of

DEMO = Path(__file__).resolve().parents[2] / "compress" / "assets" / "demo-teacher"
NOISE_OF_BAD = 0.5  # standard deviations of each matrix
JOINT = 64
STUDENTS = {
    "stream": ConformerRecipe(
        num_layers=4, width=64, num_heads=4, feed_forward=256, joint_width=JOINT
    ),
    "wide": ConformerRecipe(  # demo's joint width, so that a decoder can be shared
        num_layers=3, width=64, num_heads=4, feed_forward=256, joint_width=256
    ),
    "lstm": LstmRecipe(num_layers=3, width=128, joint_width=JOINT),
}
LSTM_TEACHER = LstmRecipe(num_layers=4, width=384, joint_width=256)


@dataclass(frozen=True)
class Schooling:
    """Steps of each preparation, audio seconds a step, utterances of synthetic speech."""

    start: tuple[int, int, int] = (1200, 800, 500)  # phones, CTC, transducer
    teacher: int = 300
    lstm: int = 700
    seconds: float = 20.0
    synthetic: int = 14_000


def make_teacher(name: str, folder: Path, sources: list[Source], schooling: Schooling) -> Path:
    """The folder of a teacher, trained once."""
    if name == "demo":
        return DEMO
    out = folder / name
    if not (out / "config.json").exists():
        torch.set_num_threads(1)
        demo, tokenizer = load_model(DEMO)
        model = TEACHERS[name](demo, tokenizer, sources, schooling, out)
        save_model(model.eval(), out, tokenizer, {"teacher": name}, half=True)
    return out


def full(demo, tokenizer, sources, schooling, out) -> Transducer:
    encoder = demo.config.encoder.model_copy(update={"full_context": True})
    config = demo.config.model_copy(update={"encoder": encoder})
    stage = CurriculumStage(config, [Phase(steps=schooling.teacher, ctc=0.1, transducer=1.0)])
    stage.transducer.load_state_dict(demo.state_dict())
    sampler = sampler_of(sources, tokenizer, schooling.seconds, 0)
    settings = TrainSettings(schooling.teacher, 4e-4, warmup_steps=50)
    train(stage, sampler, settings, out / "training", "full", resume=True)
    return stage.transducer


def bad(demo, tokenizer, sources, schooling, out) -> Transducer:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in demo.parameters():
            if parameter.ndim > 1:
                parameter += NOISE_OF_BAD * parameter.std() * torch.randn_like(parameter)
    return demo


def lstm(demo, tokenizer, sources, schooling, out) -> Transducer:
    """Hidden representations first, then the transducer loss with demo's lattice beside it."""
    config = LSTM_TEACHER.build(tokenizer.vocab_size)
    torch.manual_seed(0)
    first = schooling.lstm // 2
    phases = [Phase(steps=first), Phase(steps=schooling.lstm - first, transducer=1.0)]
    stage = CurriculumStage(config, phases)
    stage.transducer.encoder.front.load_state_dict(
        {**stage.transducer.encoder.front.state_dict(), **front_of(demo)}
    )
    stage.transducer.predictor.load_state_dict(demo.predictor.state_dict())
    stage.transducer.joiner.load_state_dict(demo.joiner.state_dict())
    sampler = sampler_of(sources, tokenizer, schooling.seconds, 0)
    lessons = parse_distill(f"hidden=1@0-{first},lattice=1@{first}")
    student = stage.transducer, tokenizer
    stage.model.teaching = build_teaching(
        lessons, "none", (demo, tokenizer), student, sampler, out / "targets"
    )
    settings = TrainSettings(schooling.lstm, 1e-3, warmup_steps=50)
    train(stage, sampler, settings, out / "training", "lstm", resume=True)
    return stage.transducer


TEACHERS = {"full": full, "lstm": lstm, "bad": bad}


def front_of(model: Transducer) -> dict[str, torch.Tensor]:
    front = model.encoder.front.state_dict()
    return {name: front[name] for name in ("mean", "scale")}


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
        stage.transducer.encoder.front.set_normalisation(
            torch.from_numpy(mean), torch.from_numpy(deviation)
        )
        sampler = sampler_of([Source(synthetic)], tokenizer, schooling.seconds, seed)
        settings = TrainSettings(
            sum(schooling.start), 3e-3, warmup_steps=50, decay_from=0.8, seed=seed
        )
        settings = replace(settings, final_rate_share=0.3)
        train(stage, sampler, settings, out / "training", out.name, resume=True)
        save_model(stage.transducer, out, tokenizer, {"seed": seed})
    return out
