"""Every distillation method while its student is being pruned: `compress run` without its files."""

from __future__ import annotations

import pytest
import torch

from compress.curriculum import CurriculumStage, Phase
from compress.data.batches import BatchSampler, BatchSettings, Source
from compress.data.store import build_store
from compress.data.synthetic import make_synthetic
from compress.distill import DISTILLERS
from compress.distill.lessons import parse_distill
from compress.distill.setup import build_teaching
from compress.models.chunks import ChunkDraw
from compress.models.encoders.conformer import ConformerEncoder
from compress.shrink.stage import ShrinkStage
from compress.trainer import TrainSettings, read_log, train
from tests.tiny_teacher import build_teacher, build_tokenizer

STEPS = 6
SETTINGS = TrainSettings(STEPS, warmup_steps=1, log_every=1, checkpoint_every=2)


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    cuts = list(make_synthetic(folder, 12, "train", 0, num_workers=1))
    store = build_store(folder, "speech", cuts, num_workers=1)
    settings = BatchSettings(seconds=6.0, tail_frames=8)
    return BatchSampler([Source(store)], build_tokenizer(), settings, augment=False)


def build(name, sampler, folder, tandem="none"):
    model = build_teacher(), build_tokenizer()
    lessons = parse_distill(f"{name}=1.0")
    teaching = build_teaching(lessons, tandem, model, model, sampler, folder / "targets")
    return ShrinkStage(model[0], 0.5, (0, 4, 1), teaching=teaching)


@pytest.mark.parametrize(
    ("name", "tandem"),
    [*((name, "none") for name in DISTILLERS), ("encoder", "colearn"), ("softmax", "colearn")],
)
def test_a_student_is_pruned_while_it_is_taught(name, tandem, sampler, tmp_path):
    stage = build(name, sampler, tmp_path, tandem)
    train(stage, sampler, SETTINGS, tmp_path / "whole", name)
    rows = read_log(tmp_path / "whole" / "log.jsonl")
    assert all(torch.isfinite(torch.tensor(row[name])) for row in rows)
    if name not in ("hard",):
        assert rows[0][name] < 0.05 * rows[0]["transducer"]  # the student is still the teacher
    assert rows[-1]["sparsity"] >= 0.5
    assert stage.reached >= 0.5
    assert not any("teaching" in key for key in stage.student.state_dict())


@pytest.mark.parametrize(("name", "tandem"), [("hidden", "none"), ("encoder", "colearn")])
def test_what_is_trained_beside_the_student_survives_a_kill(name, tandem, sampler, tmp_path):
    """Adapters follow the student's joint width, a learning teacher its own weights."""
    whole, again = kill_and_resume(
        lambda: build(name, sampler, tmp_path, tandem), sampler, tmp_path
    )
    assert_same_weights(whole.model, again.model)


def kill_and_resume(build, sampler, folder):
    """A stage that trained to the end, and one that was killed at step 3 and went on."""
    whole, first, again = build(), build(), build()
    train(whole, sampler, SETTINGS, folder / "whole", "whole")
    step = first.loss

    def dying_loss(batch, number):
        if number == 3:
            raise SystemExit("killed")
        return step(batch, number)

    first.loss = dying_loss
    with pytest.raises(SystemExit):
        train(first, sampler, SETTINGS, folder / "killed", "killed")
    train(again, sampler, SETTINGS, folder / "killed", "killed", resume=True)
    return whole, again


def assert_same_weights(wanted, found):
    wanted, found = wanted.state_dict(), found.state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)


def build_with_chunks(pruned, chunks):
    if pruned:
        return ShrinkStage(build_teacher(), 0.5, (0, 4, 1), chunks=chunks)
    torch.manual_seed(0)
    return CurriculumStage(build_teacher().config, [Phase(steps=6, ctc=1, transducer=1)], chunks)


@pytest.mark.parametrize("pruned", [True, False])
def test_a_chunk_of_every_step_survives_a_kill(pruned, sampler, tmp_path, monkeypatch):
    chunks, heard = ChunkDraw((80, 160, 640), seed=5), []
    whole, again = kill_and_resume(lambda: build_with_chunks(pruned, chunks), sampler, tmp_path)
    assert_same_weights(whole.model, again.model)
    stage, batches = build_with_chunks(pruned, chunks), sampler.from_step(0)
    hidden = ConformerEncoder.hidden

    def listen(self, features, feature_lengths, chunk_frames=None):
        heard.append(chunk_frames)
        return hidden(self, features, feature_lengths, chunk_frames)

    monkeypatch.setattr(ConformerEncoder, "hidden", listen)
    for step in range(8):
        stage.loss(next(batches), step)
    assert heard == [chunks.frames_at(step, 32) for step in range(8)]
    assert len(set(heard)) > 2
    assert stage.student.encoder.chunk_frames == 32
