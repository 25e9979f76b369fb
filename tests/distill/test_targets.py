"""Stored targets: what the teacher would have said of the batch, found again after a resume."""

from __future__ import annotations

import shutil
from itertools import islice

import pytest
import torch

from compress.data.batches import BatchSampler, BatchSettings, Source
from compress.data.store import build_store
from compress.data.synthetic import make_synthetic
from compress.distill.lattice import lattice, valid_nodes
from compress.distill.targets import TargetStore, store_targets
from compress.distill.view import view_batch
from tests.tiny_teacher import build_teacher, build_tokenizer


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    """Two sources, so that each utterance must be found under its own data set's name."""
    folder = tmp_path_factory.mktemp("cache")
    sources = []
    for seed in (0, 1):
        cuts = list(make_synthetic(folder, 10, "train", seed, num_workers=1))
        for cut in cuts:
            cut.id = cut.id.replace(f"-{seed}-", "-")  # the same ids in both
            cut.custom = {"data": f"pack{seed}"}
        sources.append(Source(build_store(folder, f"pack{seed}", cuts, num_workers=1)))
    settings = BatchSettings(seconds=6.0, tail_frames=8)
    return BatchSampler(sources, build_tokenizer(), settings, augment=False)


def test_equals_the_teacher_on_every_batch(sampler, tmp_path):
    teacher = build_teacher()
    targets = store_targets(tmp_path / "targets", teacher, sampler)
    for batch in islice(sampler.from_step(0), 6):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            wanted = view_batch(teacher, batch)
        found = targets.view(batch, wanted.log_blank.shape[1])
        assert torch.equal(found.logit_lengths, wanted.logit_lengths)
        nodes = valid_nodes(wanted, batch.target_lengths)
        labels = torch.arange(wanted.log_emit.shape[2]) < batch.target_lengths[:, None]
        emits = nodes[:, :, :-1] & labels[:, None]
        # bfloat16 products in batches of other shapes, then float16: two and three digits.
        for part, valid in (("log_blank", nodes), ("log_emit", emits)):
            one, other = getattr(found, part)[valid], getattr(wanted, part)[valid]
            torch.testing.assert_close(one, other, atol=0.05, rtol=0.02)
        assert lattice(wanted, found, batch).abs() < 1e-3


def test_found_again_without_the_teacher(sampler, tmp_path):
    folder = tmp_path / "targets"
    store_targets(folder, build_teacher(), sampler)
    before = (folder / "moves.f16").read_bytes()
    store_targets(folder, build_teacher(seed=1), sampler)
    assert (folder / "moves.f16").read_bytes() == before


def test_a_kill_while_storing_leaves_nothing_that_looks_finished(sampler, tmp_path, monkeypatch):
    folder = tmp_path / "targets"
    whole = store_targets(folder, build_teacher(), sampler)
    before = whole.moves.tobytes()
    shutil.rmtree(folder)

    def die(path, content):
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr("compress.distill.targets.write_json", die)
        with pytest.raises(SystemExit):
            store_targets(folder, build_teacher(), sampler)
    assert isinstance(store_targets(folder, build_teacher(), sampler), TargetStore)
    assert (folder / "moves.f16").read_bytes() == before
