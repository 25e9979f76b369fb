"""The teacher's node posterior against all paths, and the loss that it weighs."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from compress.distill.lattice import node_divergence
from compress.distill.occupancy import Occupancy, occupancy
from streaming.errors import InputError
from tests.reference.networks import LOGIT_LENGTHS, TARGET_LENGTHS, batch_of, random_view
from tests.reference.paths import enumerate_paths, node_posteriors


def valid_part(view, row):
    frames, labels = int(LOGIT_LENGTHS[row]), int(TARGET_LENGTHS[row])
    return view.log_blank[row, :frames, : labels + 1], view.log_emit[row, :frames, :labels]


def test_by_hand():
    """Two frames, one label: emitted in the first frame in 3 of 4 cases."""
    log_blank = torch.tensor([[[0.25, 1.0], [0.25, 1.0]]]).log()
    log_emit = torch.tensor([[[0.75], [1.0]]]).log()
    teacher = SimpleNamespace(
        log_blank=log_blank, log_emit=log_emit, logit_lengths=torch.tensor([2])
    )
    gamma = occupancy(teacher, torch.tensor([1]))
    torch.testing.assert_close(gamma[0], torch.tensor([[1.0, 0.75], [0.25, 1.0]]))


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 2.0])
def test_equals_all_paths(sharpness):
    teacher = random_view(0, torch.float64)
    gamma = occupancy(teacher, TARGET_LENGTHS, sharpness)
    for row in range(3):
        log_blank, log_emit = valid_part(teacher, row)
        wanted = node_posteriors(sharpness * log_blank, sharpness * log_emit)
        frames, rows = wanted.shape
        torch.testing.assert_close(gamma[row, :frames, :rows], wanted.detach())
        assert not gamma[row, frames:].any()
        assert not gamma[row, :, rows:].any()


@pytest.mark.parametrize("sharpness", [0.0, 0.3, 1.0, 30.0])
def test_sums_to_the_length_of_a_path(sharpness):
    gamma = occupancy(random_view(1, torch.float64), TARGET_LENGTHS, sharpness)
    wanted = (LOGIT_LENGTHS + TARGET_LENGTHS).double()
    torch.testing.assert_close(gamma.sum((1, 2)), wanted, atol=1e-9, rtol=0)


def test_sharpness_zero_counts_paths():
    gamma = occupancy(random_view(1), TARGET_LENGTHS, sharpness=0.0)
    visits = torch.zeros(5, 4)
    paths = list(enumerate_paths(5, 3))
    for path in paths:
        for t, u, _ in path:
            visits[t, u] += 1 / len(paths)
    torch.testing.assert_close(gamma[0], visits)


def test_equals_the_weighted_sum_node_by_node():
    student, teacher = random_view(2), random_view(3)
    divergence = node_divergence(student, teacher, TARGET_LENGTHS)
    total = 0.0
    for row in range(3):
        gamma = node_posteriors(*valid_part(teacher, row))
        nodes = sum(
            (gamma[t, u] * divergence[row, t, u]).item()
            for t in range(gamma.shape[0])
            for u in range(gamma.shape[1])
        )
        total += nodes / int(TARGET_LENGTHS[row])
    loss = Occupancy().loss(student, teacher, batch_of())
    assert loss.item() == pytest.approx(total / 3, rel=1e-5)


def test_corners_that_the_teacher_never_visits_do_not_count():
    """A teacher sure of emitting in frame 0: the student may say what it likes of (1, 0)."""
    sure = torch.tensor([[[-50.0, -1e-3], [-1e-3, -1e-3]]])
    teacher = SimpleNamespace(
        log_blank=sure, log_emit=torch.tensor([[[-1e-3], [-7.0]]]), logit_lengths=torch.tensor([2])
    )
    student = SimpleNamespace(
        log_blank=sure.clone(), log_emit=teacher.log_emit, logit_lengths=teacher.logit_lengths
    )
    student.log_blank[0, 1, 0] = -5.0
    batch = batch_of(torch.tensor([[3]]), torch.tensor([1]))
    assert Occupancy().loss(student, teacher, batch) < 1e-6
    assert Occupancy(sharpness=0.0).loss(student, teacher, batch) > 0.5


def test_figures_count_the_nodes_a_step():
    """Two equal paths share two of three nodes: entropy 2 * 0.5 ln 2 over three steps."""
    half = math.log(0.5)
    teacher = SimpleNamespace(
        log_blank=torch.tensor([[[half, 0.0], [0.0, 0.0]]]),
        log_emit=torch.tensor([[[half], [0.0]]]),
        logit_lengths=torch.tensor([2]),
    )
    batch = batch_of(torch.tensor([[3]]), torch.tensor([1]))
    figures = Occupancy().figures(teacher, teacher, batch)
    assert figures == {"nodes_a_step": pytest.approx(math.exp(math.log(2) / 3))}


@pytest.mark.parametrize("sharpness", [-1.0, math.inf, math.nan])
def test_wrong_sharpness_names_the_fix(sharpness):
    with pytest.raises(InputError, match="use 1 for the teacher's posterior"):
        Occupancy(sharpness=sharpness)
