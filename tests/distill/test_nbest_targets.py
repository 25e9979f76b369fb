"""What is stored of the teacher's hypotheses: different, best first, scored over all paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.distill.targets.nbest import NBestTargets, split_tokens
from compress.distill.targets.reference import ReferenceTargets
from streaming.errors import InputError
from tests.distill.small_views import (
    TARGET_LENGTHS,
    TARGETS,
    batch_of,
    enumerated_score,
    taught_by,
    view_of,
)


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_sums_over_all_paths(seed):
    view = view_of(seed)
    stored = taught_by(view).stored
    labels, lengths, valid = stored["nbest"].hypotheses
    assert valid.all()
    for row in range(3):
        for n in range(4):
            wanted = enumerated_score(view, row, labels[row, n, : lengths[row, n]].tolist())
            assert stored["nbest"].scores[row, n].item() == pytest.approx(wanted.item(), rel=1e-5)
        wanted = enumerated_score(view, row, TARGETS[row, : TARGET_LENGTHS[row]].tolist())
        assert stored["reference"][row].item() == pytest.approx(wanted.item(), rel=1e-5)


@torch.no_grad()
def test_hypotheses_are_stored_once_and_best_first():
    view = view_of(1)
    kind = NBestTargets(beam=8, nbest=6)
    for item in kind.label(view, view.batch):
        texts = [tuple(tokens) for tokens in split_tokens(item)]
        assert len(set(texts)) == len(texts) == 6
        assert (np.diff(item["scores"]) <= 0).all()
        assert item["tokens"].dtype == item["lengths"].dtype == np.uint16
        assert item["scores"].dtype == np.float32
        assert item["lengths"].sum() == len(item["tokens"])


@torch.no_grad()
def test_found_again_as_labelled():
    """Batched alone or together; items of different sizes are padded, and the padding is marked."""
    together = taught_by(view_of(2)).stored["nbest"]
    kind = NBestTargets()
    items = []
    for row in range(3):
        view = view_of(2, [row])
        items += kind.label(view, view.batch)
    items[1] = {name: part[: 1 if name != "tokens" else 0] for name, part in items[1].items()}
    items[1]["lengths"] = np.zeros(1, np.uint16)
    found = kind.collate(items, batch_of(), 5)
    for row in (0, 2):
        torch.testing.assert_close(found.scores[row], together.scores[row])
        for n in range(4):
            length = together.hypotheses.lengths[row, n]
            assert found.hypotheses.lengths[row, n] == length
            one, other = found.hypotheses.labels, together.hypotheses.labels
            assert torch.equal(one[row, n, :length], other[row, n, :length])
            assert not one[row, n, length:].any()
    assert found.hypotheses.valid[1].tolist() == [True, False, False, False]
    assert found.hypotheses.lengths[1].tolist() == [0, 0, 0, 0]
    assert found.scores[1, 1:].tolist() == [-torch.inf] * 3


@torch.no_grad()
def test_bfloat16_outside_leaves_scores_exact():
    """Targets are stored under autocast; the full sum does not take part in it."""
    view = view_of(3)
    plain = [kind.label(view, view.batch) for kind in (NBestTargets(), ReferenceTargets())]
    with torch.autocast("cpu", torch.bfloat16):
        cast = [kind.label(view, view.batch) for kind in (NBestTargets(), ReferenceTargets())]
    for one, other in zip(plain, cast, strict=True):
        for item, same in zip(one, other, strict=True):
            assert all(np.array_equal(item[name], same[name]) for name in item)


@pytest.mark.parametrize(("beam", "nbest"), [(4, 8), (0, 0)])
def test_wrong_beam_is_refused(beam, nbest):
    with pytest.raises(InputError, match="as many as are kept"):
        NBestTargets(beam, nbest)
