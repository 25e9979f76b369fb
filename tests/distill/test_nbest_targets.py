"""What is stored of the teacher's hypotheses: different, best first, scored over all paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.distill.targets.nbest import NBestTargets, pad_hypotheses, split_tokens
from compress.distill.targets.reference import ReferenceTargets
from compress.losses.hypotheses import different_rows, score_hypotheses, score_labels
from compress.models.config import LstmPredictorConfig, StatelessPredictorConfig
from streaming.errors import InputError
from tests.distill.small_views import (
    LOGIT_LENGTHS,
    TARGET_LENGTHS,
    TARGETS,
    batch_of,
    build_model,
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


@pytest.mark.parametrize("predictor", [StatelessPredictorConfig, LstmPredictorConfig])
def test_shared_rows_change_no_score(predictor):
    """Three hypotheses that part and meet again, one that is another's beginning, one empty."""
    widths = {"embedding": 8} if predictor is LstmPredictorConfig else {}
    model = build_model(5, predictor=predictor, **widths)
    encoded = view_of(5).encoded
    texts = [[2, 3, 4, 2, 3], [2, 3, 5, 2, 3], [2, 3]], [[6, 6, 6, 6], [6, 6]], [[], [4]]
    hypotheses = pad_hypotheses([list(some) for some in texts])
    scores = score_hypotheses(model, encoded, LOGIT_LENGTHS, hypotheses)
    for row, some in enumerate(texts):
        for n, labels in enumerate(some):
            padded, length = torch.tensor([labels], dtype=torch.long), torch.tensor([len(labels)])
            one = slice(row, row + 1)
            alone = score_labels(model, encoded[one], LOGIT_LENGTHS[one], padded, length)
            assert scores[row, n].item() == pytest.approx(alone.item(), rel=1e-5)
    assert torch.isinf(scores).sum() == 2


def test_a_row_that_hypotheses_share_is_there_once():
    """2 3 4 and 2 3 5 share their first two rows of four, and no other utterance's."""
    predictor = build_model(0).predictor
    labels = torch.tensor([[2, 3, 4], [2, 3, 5], [2, 3, 4]])
    utterance, lengths = torch.tensor([0, 0, 1]), torch.tensor([3, 3, 3])
    rows = different_rows(predictor, utterance, labels, lengths, 2)
    assert rows.context.shape == (2, 6, 2)
    assert rows.places[0, :2].tolist() == rows.places[1, :2].tolist()
    assert rows.places[:2].unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert rows.places[2].unique().tolist() == [0, 1, 2, 3]


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
