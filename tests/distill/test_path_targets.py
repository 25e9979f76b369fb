"""Stored paths: what is kept of a softmax, what a language model changes, and the files."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from itertools import islice

import numpy as np
import pytest
import torch

from compress.data.batches import BatchSampler, BatchSettings, Source
from compress.data.store import build_store
from compress.data.synthetic import make_synthetic
from compress.distill.one_best import OneBest
from compress.distill.targets import path as path_module
from compress.distill.targets.path import PathTargets, fuse, merge_rest, path_log_probs
from compress.distill.targets.store import key_of, store_targets
from compress.distill.view import view_batch
from compress.lm import NgramModel, fingerprint, save_lm
from compress.lm.config import NgramConfig
from compress.losses.best_path import best_path
from compress.losses.path import merge_classes
from streaming.errors import InputError
from tests.tiny_teacher import build_teacher, build_tokenizer


def random_log_probs(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(shape, generator=generator)).log_softmax(-1)


def divergence(theirs, ours):
    return (theirs.exp() * (theirs - ours)).sum(-1)


def test_merged_by_hand():
    """.1 blank, .6 .05 .25: with two tokens, blank and the likeliest label; the rest is .3."""
    log_probs = torch.tensor([0.1, 0.05, 0.6, 0.25]).log()
    tokens, merged = merge_rest(log_probs, 2)
    assert tokens.tolist() == [0, 2]
    torch.testing.assert_close(merged.exp(), torch.tensor([0.1, 0.6, 0.3]))


@pytest.mark.parametrize("top_k", [2, 5, 12, 40])
def test_blank_is_stored_however_unlikely(top_k):
    log_probs = random_log_probs(0, 50, 12)
    log_probs[:, 0] = -30.0
    tokens, merged = merge_rest(log_probs, top_k)
    k = min(top_k, 12)
    assert tokens.shape == (50, k) and merged.shape == (50, k + 1)
    assert (tokens[:, 0] == 0).all() and (merged[:, 0] == -30).all()
    assert all(len(set(row)) == k for row in tokens.tolist())
    best = log_probs[:, 1:].topk(k - 1).values
    assert torch.equal(merged[:, 1:k], best)


def test_all_tokens_are_exact():
    log_probs = random_log_probs(1, 7, 12)
    tokens, merged = merge_rest(log_probs, 12)
    assert torch.equal(torch.zeros_like(log_probs).scatter(-1, tokens, merged[:, :-1]), log_probs)
    assert (merged[:, -1].exp() == 0).all()


@pytest.mark.parametrize("top_k", [2, 4, 8])
def test_what_merging_costs(top_k):
    """Full divergence = merged divergence + q(rest) * divergence within rest, node by node."""
    theirs, ours = random_log_probs(2, 100, 20), random_log_probs(3, 100, 20)
    tokens, merged = merge_rest(theirs, top_k)
    within = [
        logits.scatter(-1, tokens, -torch.inf).log_softmax(-1).clamp(min=-1e4)
        for logits in (theirs, ours)
    ]
    lost = merged[:, -1].exp() * divergence(*within)
    kept = divergence(merged, merge_classes(ours, tokens))
    torch.testing.assert_close(kept + lost, divergence(theirs, ours), atol=1e-5, rtol=1e-5)
    assert (kept > 0).all()


def test_fusion_by_hand():
    """.5 blank; labels .3 .2 fused with a language model of .25 .75 at weight 1: .15 to .15."""
    log_probs = torch.tensor([0.5, 1e-9, 0.3, 0.2]).log()
    lm = torch.tensor([1.0, 1.0, 0.25, 0.75]).log()
    fused = fuse(log_probs, lm, 1.0).exp()
    third = 0.3 * 0.25 / (0.3 * 0.25 + 0.2 * 0.75)
    wanted = torch.tensor([0.5, 0.0, 0.5 * third, 0.5 * (1 - third)])
    torch.testing.assert_close(fused, wanted, atol=1e-6, rtol=1e-6)


def test_fusion_keeps_blank_and_the_sum():
    log_probs, lm = random_log_probs(4, 30, 12), random_log_probs(5, 30, 12)
    fused = fuse(log_probs, lm, 0.3)
    assert torch.equal(fused[:, 0], log_probs[:, 0])
    torch.testing.assert_close(fused.exp().sum(-1), torch.ones(30))
    other = lm.clone()
    other[:, :2] = 0.0  # what the language model says of blank and <unk> is not used
    assert torch.equal(fuse(log_probs, other, 0.3), fused)


def test_a_weight_of_zero_changes_nothing():
    log_probs, lm = random_log_probs(6, 30, 12), random_log_probs(7, 30, 12)
    torch.testing.assert_close(fuse(log_probs, lm, 0.0), log_probs)


class Bigram:
    """A language model of the last label: token (label + 1) mod V is likely."""

    def log_probs(self, targets, target_lengths):
        last = torch.cat([torch.zeros_like(targets[:, :1]), targets], 1)
        likely = torch.nn.functional.one_hot((last + 1) % 48, 48)
        return (5.0 * likely).log_softmax(-1)


@pytest.fixture
def lm(tmp_path, monkeypatch):
    folder = tmp_path / "lm"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(path_module, "load_language_model", lambda folder: Bigram())
    return folder


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    cuts = list(make_synthetic(folder, 10, "train", 0, num_workers=1))
    settings = BatchSettings(seconds=6.0, tail_frames=8)
    source = Source(build_store(folder, "pack", cuts, num_workers=1))
    return BatchSampler([source], build_tokenizer(), settings, augment=False)


def stored_view(targets, batch):
    return targets.view(batch, [key_of(row) for row in batch.rows], 200)


@torch.no_grad()
def test_equals_the_teacher_on_every_batch(sampler, tmp_path):
    """In the batches of training, which are others than those of labelling."""
    teacher = build_teacher()
    targets = store_targets(tmp_path, [PathTargets(top_k=48)], teacher, sampler)
    for batch in islice(sampler.from_step(0), 4):
        with torch.autocast("cpu", torch.bfloat16):
            running = view_batch(teacher, batch)
        stored = stored_view(targets, batch)
        path, tokens, merged = stored.stored["path"]
        assert path.lengths.tolist() == (running.logit_lengths + batch.target_lengths).tolist()
        wanted = merge_classes(path_log_probs(running, path), tokens)[path.valid]
        # bfloat16 encoders in batches of other shapes, then float16: two and three digits.
        found = merged[path.valid]
        torch.testing.assert_close(found[:, :-1], wanted[:, :-1], atol=0.05, rtol=0.02)
        loss = OneBest(top_k=48).loss(running, stored, batch)
        assert 0 <= loss < 1e-2


@torch.no_grad()
def test_items_are_the_best_path_without_padding(sampler):
    teacher, batch = build_teacher(), next(sampler.from_step(0))
    view = view_batch(teacher, batch)
    lengths = view.logit_lengths, batch.target_lengths
    wanted = best_path(view.log_blank, view.log_emit, *lengths)
    for row, item in enumerate(PathTargets().label(view, batch)):
        length = int(wanted.lengths[row])
        assert item["t"].tolist() == wanted.frames[row, :length].tolist()
        assert item["u"].tolist() == wanted.rows[row, :length].tolist()
        assert item["tokens"].shape == (length, 8) and item["log_probs"].shape == (length, 9)
        assert sum(part.nbytes for part in item.values()) == 38 * length


@torch.no_grad()
def test_a_trained_language_model_from_its_folder(sampler, tmp_path):
    tokenizer, teacher, batch = build_tokenizer(), build_teacher(), next(sampler.from_step(0))
    words = np.array([0, *tokenizer.encode("turn on the light"), 0])
    lm = NgramModel.train([words], NgramConfig(order=3, vocab_size=48), fingerprint(tokenizer))
    (tmp_path / "lm").mkdir()
    save_lm(lm, tmp_path / "lm")
    kind = PathTargets(top_k=48, lm=str(tmp_path / "lm"), lm_weight=0.5)
    view = view_batch(teacher, batch)
    path, tokens, merged = kind.collate(kind.label(view, batch), batch, 200)
    after = lm.log_probs(batch.targets, batch.target_lengths)
    rows = after.gather(1, path.rows[..., None].expand(-1, -1, 48))
    wanted = fuse(path_log_probs(view, path), rows, 0.5).gather(-1, tokens)
    found = merged[..., :-1].exp()[path.valid]
    torch.testing.assert_close(found, wanted.exp()[path.valid], atol=1e-3, rtol=0)


@torch.no_grad()
def test_the_language_model_follows_the_labels(sampler, lm):
    """A uniform teacher: on node (t, u) the fused favourite is what follows label u, not t."""
    teacher, batch = build_teacher(), next(sampler.from_step(0))
    for parameter in teacher.joiner.parameters():
        parameter.zero_()
    kind = PathTargets(top_k=2, lm=str(lm), lm_weight=1.0)
    view = view_batch(teacher, batch)
    path, tokens, merged = kind.collate(kind.label(view, batch), batch, 200)
    labels = batch.targets.gather(1, (path.rows - 1).clamp(min=0)).where(path.rows > 0, 0)
    favourite = (labels + 1) % 48
    known = path.valid & (favourite > 1)
    assert torch.equal(tokens[..., 1][known], favourite[known])
    log_blank = merged[..., 0][path.valid]
    torch.testing.assert_close(
        log_blank, torch.full_like(log_blank, -math.log(48)), atol=2e-3, rtol=0
    )
    torch.testing.assert_close(
        merged[path.valid].exp().sum(-1), torch.ones_like(log_blank), atol=2e-3, rtol=0
    )


def test_a_teacher_that_says_nan_is_named(sampler, tmp_path):
    teacher = build_teacher()
    with torch.no_grad():
        teacher.joiner.output.bias[3] = torch.nan
    with pytest.raises(InputError, match="NaN or infinity of utterance synthetic"):
        store_targets(tmp_path, [PathTargets()], teacher, sampler)


def test_resumed_after_being_cut_short(sampler, tmp_path):
    kinds, teacher = [PathTargets()], build_teacher()
    store_targets(tmp_path / "whole", kinds, teacher, sampler)
    store_targets(tmp_path / "cut", kinds, teacher, sampler)
    file, index = tmp_path / "cut" / "path.bin", tmp_path / "cut" / "path.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    start = json.loads(lines[5])[1]
    with file.open("r+b") as opened:
        opened.truncate(start + 7)
    index.write_text("".join(lines[:5]) + lines[5][:20])
    targets = store_targets(tmp_path / "cut", kinds, teacher, sampler)
    whole = store_targets(tmp_path / "whole", kinds, teacher, sampler)
    for batch in islice(sampler.from_step(0), 2):
        one, other = (stored_view(view, batch).stored["path"] for view in (targets, whole))
        assert torch.equal(one.path.rows, other.path.rows)
        assert torch.equal(one.tokens, other.tokens)


def test_targets_of_another_language_model_are_refused(sampler, tmp_path, lm):
    folder, teacher = tmp_path / "targets", build_teacher()
    store_targets(folder, [PathTargets(lm=str(lm))], teacher, sampler)
    moved = lm.rename(tmp_path / "moved")
    store_targets(folder, [PathTargets(lm=str(moved))], teacher, sampler)
    for other in (PathTargets(), PathTargets(lm=str(moved), lm_weight=0.4)):
        with pytest.raises(InputError, match="another settings"):
            store_targets(folder, [other], teacher, sampler)
    (moved / "config.json").write_text("{ }")
    with pytest.raises(InputError, match="another settings"):
        store_targets(folder, [PathTargets(lm=str(moved))], teacher, sampler)


def test_equal_kinds(lm):
    assert PathTargets(lm_weight=0.5) == PathTargets()  # without a language model no difference
    assert PathTargets(lm=str(lm)) != PathTargets()
    assert PathTargets(top_k=4) != PathTargets()
    assert asdict(PathTargets(lm=str(lm))).keys() == {"top_k", "lm_weight", "lm_hash"}
    hash(PathTargets(lm=str(lm)))


def test_a_language_model_of_another_vocabulary(sampler, tmp_path, lm, monkeypatch):
    monkeypatch.setattr(Bigram, "log_probs", lambda self, targets, lengths: torch.zeros(9, 50, 50))
    with pytest.raises(InputError, match="50 tokens, the teacher 48"):
        store_targets(tmp_path / "targets", [PathTargets(lm=str(lm))], build_teacher(), sampler)


def test_another_transcript_is_named(sampler):
    batch = next(sampler.from_step(0))
    kind = PathTargets()
    with torch.no_grad():
        items = kind.label(view_batch(build_teacher(), batch), batch)
    items[0] = {name: part[:-1] for name, part in items[0].items()}
    items[0]["u"][-1] -= 1
    with pytest.raises(InputError, match=f"{batch.rows[0].id}.*delete the stored targets"):
        kind.collate(items, batch, 200)
