"""Stored targets: what the teacher would have said of the batch, found again after a kill."""

from __future__ import annotations

import threading
from itertools import islice

import numpy as np
import pytest
import torch

from compress import precision
from compress.data.batches import BatchSampler, BatchSettings, Source
from compress.data.store import build_store
from compress.data.synthetic import make_synthetic
from compress.distill.lattice import lattice, valid_nodes
from compress.distill.targets.encoded import EncodedTargets
from compress.distill.targets.moves import MoveTargets
from compress.distill.targets.store import alone_in, key_of, store_targets
from compress.distill.view import view_batch
from streaming.errors import InputError
from tests.tiny_teacher import build_teacher, build_tokenizer

KINDS = [MoveTargets(), EncodedTargets()]


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


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_equals_the_teacher_on_every_batch(sampler, tmp_path):
    teacher = build_teacher()
    targets = store_targets(tmp_path / "targets", KINDS, teacher, sampler)
    for batch in islice(sampler.from_step(0), 6):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            wanted = view_batch(teacher, batch)
        keys = [key_of(row) for row in batch.rows]
        found = targets.view(batch, keys, wanted.encoded.shape[1])
        assert torch.equal(found.logit_lengths, wanted.logit_lengths)
        nodes = valid_nodes(wanted, batch.target_lengths)
        labels = torch.arange(wanted.log_emit.shape[2]) < batch.target_lengths[:, None]
        emits = nodes[:, :, :-1] & labels[:, None]
        frames = nodes[:, :, 0]
        # bfloat16 products in batches of other shapes, then float16: two and three digits.
        for part, valid in (("log_blank", nodes), ("log_emit", emits), ("encoded", frames)):
            one, other = getattr(found, part)[valid], getattr(wanted, part)[valid]
            torch.testing.assert_close(one, other.float(), atol=0.05, rtol=0.02)
        assert not found.encoded[~frames].any()
        assert lattice(wanted, found, batch).abs() < 1e-3


def test_found_again_without_the_teacher(sampler, tmp_path):
    folder = tmp_path / "targets"
    store_targets(folder, KINDS, build_teacher(), sampler)
    before = content(folder)
    store_targets(folder, KINDS, build_teacher(), sampler)
    assert content(folder) == before


@pytest.mark.parametrize("begun", [True, False])
def test_what_a_folder_was_begun_in_is_kept(sampler, tmp_path, monkeypatch, capsys, begun):
    """On another machine, and by a kind that comes later: the bytes are those of one machine."""
    flags = {True: frozenset({"amx_bf16"}), False: frozenset()}
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags[begun])
    store_targets(whole, KINDS, build_teacher(), sampler)
    store_targets(moved, KINDS[:1], build_teacher(), sampler)
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags[not begun])
    store_targets(tmp_path / "there", KINDS, build_teacher(), sampler)
    capsys.readouterr()
    store_targets(moved, KINDS, build_teacher(), sampler)
    assert content(moved) == content(whole)
    assert content(moved) != content(tmp_path / "there")
    wanted = f"teacher's targets in {'bfloat16' if begun else 'float32'} (as it was begun"
    assert wanted in capsys.readouterr().err


def test_targets_without_a_word_are_in_bfloat16(sampler, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    folder = tmp_path / "targets"
    store_targets(folder, KINDS, build_teacher(), sampler)
    for index in folder.glob("*.jsonl"):
        index.write_text(index.read_text().replace('"bfloat16": true, ', ""))
    before = content(folder)
    monkeypatch.setattr(precision, "cpu_flags", frozenset)
    store_targets(folder, KINDS, build_teacher(), sampler)
    assert content(folder) == before


def test_another_teacher_tokenizer_or_setting_is_refused(sampler, tmp_path):
    folder = tmp_path / "targets"
    store_targets(folder, KINDS, build_teacher(), sampler)
    with pytest.raises(InputError, match=r"another teacher.*delete .*targets"):
        store_targets(folder, KINDS, build_teacher(seed=1), sampler)
    index = folder / "moves.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    index.write_text(
        lines[0].replace('"settings": {}', '"settings": {"k": 2}') + "".join(lines[1:])
    )
    with pytest.raises(InputError, match="another settings"):
        store_targets(folder, KINDS, build_teacher(), sampler)
    index.write_text("not json\n")
    with pytest.raises(InputError, match="no index of stored targets"):
        store_targets(folder, KINDS, build_teacher(), sampler)


@pytest.mark.parametrize("cut", [1, 50, 2000])
def test_a_kill_while_storing_loses_nothing_but_the_last(sampler, tmp_path, cut):
    """Files cut short anywhere: what is left is kept, the rest is made again, byte for byte."""
    folder = tmp_path / "targets"
    store_targets(folder, KINDS, build_teacher(), sampler)
    before = content(folder)
    for name in ("moves.bin", "encoded.jsonl"):
        path = folder / name
        path.write_bytes(before[name][: len(before[name]) - cut])
    store = store_targets(folder, KINDS, build_teacher(), sampler)
    for source in sampler.sources:
        for row in source.store.rows:
            for kind in KINDS:
                assert all(
                    np.isfinite(part).all()
                    for part in store.kinds[kind.name].item(key_of(row)).values()
                )
    assert len(content(folder)["moves.bin"]) == len(before["moves.bin"])


def test_a_second_process_waits_for_the_first(sampler, tmp_path):
    folder = tmp_path / "targets"
    entered, done = threading.Event(), threading.Event()

    def second():
        entered.set()
        store_targets(folder, KINDS, build_teacher(), sampler)
        done.set()

    with alone_in(folder):  # flock is of the open file, so it keeps threads apart as well
        other = threading.Thread(target=second)
        other.start()
        assert entered.wait(5)
        assert not done.wait(0.5)
        assert not (folder / "moves.jsonl").exists()
    other.join()
    assert done.is_set()


def test_nan_names_the_utterance(sampler, tmp_path):
    teacher = build_teacher()
    with torch.no_grad():
        teacher.encoder.project.bias[0] = float("nan")
    with pytest.raises(InputError, match=r"NaN or infinity of utterance pack\d/"):
        store_targets(tmp_path / "targets", KINDS, teacher, sampler)
