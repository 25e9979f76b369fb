"""The best path by hand, against all paths, and on lattices of the size of real speech."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
import torch

from compress.losses.best_path import best_path
from tests.reference.best_path import best_nodes, nodes_score


def random_moves(num_frames, num_labels, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, num_frames, num_labels + 1, 3)
    log_probs = torch.randn(shape, generator=generator, dtype=torch.float64).log_softmax(-1)
    return log_probs[..., 0], log_probs[:, :, :-1, 1]


def nodes_of(path, row=0):
    length = int(path.lengths[row])
    nodes = torch.stack([path.frames[row, :length], path.rows[row, :length]], 1)
    return [tuple(node) for node in nodes.tolist()]


def test_by_hand():
    """Two frames, one label: emitting in frame 1 scores .9 .8 .9, in frame 0 .1 .9 .9."""
    log_blank = torch.tensor([[[0.9, 0.9], [0.2, 0.9]]]).log()
    log_emit = torch.tensor([[[0.1], [0.8]]]).log()
    lengths = torch.tensor([2]), torch.tensor([1])
    assert nodes_of(best_path(log_blank, log_emit, *lengths)) == [(0, 0), (1, 0), (1, 1)]
    early = torch.tensor([[[0.95], [0.8]]]).log()
    assert nodes_of(best_path(log_blank, early, *lengths)) == [(0, 0), (0, 1), (1, 1)]


def test_two_labels_in_one_frame():
    """The second frame's labels are likely, the first frame's are not: both wait for it."""
    log_blank = torch.full((1, 2, 3), 0.5).log()
    log_emit = torch.tensor([[[0.1, 0.1], [0.9, 0.9]]]).log()
    path = best_path(log_blank, log_emit, torch.tensor([2]), torch.tensor([2]))
    assert nodes_of(path) == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_no_labels():
    log_blank, log_emit = random_moves(3, 0)
    path = best_path(log_blank, log_emit, torch.tensor([3]), torch.tensor([0]))
    assert nodes_of(path) == [(0, 0), (1, 0), (2, 0)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_labels", [0, 1, 2, 4])
@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_equals_all_paths(num_frames, num_labels, seed):
    log_blank, log_emit = random_moves(num_frames, num_labels, seed=seed)
    lengths = torch.tensor([num_frames]), torch.tensor([num_labels])
    path = best_path(log_blank, log_emit, *lengths)
    assert nodes_of(path) == best_nodes(log_blank[0], log_emit[0])


@pytest.mark.parametrize("padding", [0.0, -6e4])
def test_padding_in_the_batch_changes_nothing(padding):
    """Padding likelier than speech, and less likely, in any order of the batch."""
    log_blank, log_emit = random_moves(5, 4, batch=4, seed=7)
    frames, labels = torch.tensor([5, 3, 1, 5]), torch.tensor([2, 4, 1, 0])
    for row, (t, u) in enumerate(zip(frames.tolist(), labels.tolist(), strict=True)):
        log_blank[row, t:] = padding
        log_blank[row, :, u + 1 :] = padding
        log_emit[row, t:] = padding
        log_emit[row, :, u:] = padding
    path = best_path(log_blank, log_emit, frames, labels)
    assert path.lengths.tolist() == (frames + labels).tolist()
    assert path.frames.shape == (4, 7)
    for row, (t, u) in enumerate(zip(frames.tolist(), labels.tolist(), strict=True)):
        assert nodes_of(path, row) == best_nodes(log_blank[row, :t, : u + 1], log_emit[row, :t, :u])
    order = torch.tensor([2, 0, 3, 1])
    mixed = best_path(log_blank[order], log_emit[order], frames[order], labels[order])
    assert torch.equal(mixed.frames, path.frames[order])
    assert torch.equal(mixed.rows, path.rows[order])


def test_padding_is_node_zero_and_not_valid():
    log_blank, log_emit = random_moves(4, 2, batch=2)
    path = best_path(log_blank, log_emit, torch.tensor([4, 2]), torch.tensor([2, 1]))
    assert path.valid.sum(1).tolist() == [6, 3]
    assert path.valid[1].tolist() == [True] * 3 + [False] * 3
    assert path.frames[1, 3:].tolist() == path.rows[1, 3:].tolist() == [0, 0, 0]


def test_no_move_is_skipped_and_the_score_is_the_best_one():
    """The size of real speech: a chain of single moves that scores what plain loops find."""
    log_blank, log_emit = random_moves(60, 20, batch=2, seed=3)
    frames, labels = torch.tensor([60, 41]), torch.tensor([20, 13])
    path = best_path(log_blank, log_emit, frames, labels)
    for row, (t, u) in enumerate(zip(frames.tolist(), labels.tolist(), strict=True)):
        nodes = nodes_of(path, row)
        assert nodes[0] == (0, 0) and nodes[-1] == (t - 1, u) and len(nodes) == t + u
        moves = {(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(nodes)}
        assert moves == {(0, 1), (1, 0)}
        parts = log_blank[row, :t, : u + 1], log_emit[row, :t, :u]
        assert nodes_score(nodes, *parts) == pytest.approx(loop_score(*parts), abs=1e-9)


def loop_score(log_blank, log_emit):
    """The best path's score, node by node."""
    num_frames, num_rows = log_blank.shape
    best = torch.full((num_frames, num_rows), -torch.inf, dtype=torch.float64)
    best[0, 0] = 0.0
    for t in range(num_frames):
        for u in range(num_rows):
            if t:
                best[t, u] = torch.maximum(best[t, u], best[t - 1, u] + log_blank[t - 1, u])
            if u:
                best[t, u] = torch.maximum(best[t, u], best[t, u - 1] + log_emit[t, u - 1])
    return float(best[-1, -1] + log_blank[-1, -1])


def test_fast_enough_to_label_a_training_set():
    """32 utterances of 16 s take 30 ms; a loop over their nodes in Python would take a minute."""
    log_blank, log_emit = random_moves(400, 100, batch=32)
    lengths = torch.full((32,), 400), torch.full((32,), 100)
    start = time.process_time()
    best_path(log_blank, log_emit, *lengths)
    assert time.process_time() - start < 2.0
