"""torch whole = torch streaming = onnxruntime fp32; int8 says nearly the same tokens."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export.parity import edit_distance, join_utterances, ladder, token_agreement
from tests.export.conftest import KINDS


def run_ladder(model, bundle, features, **settings):
    return ladder(model.encoder, model.predictor, model.joiner, bundle, features, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_every_rung_agrees_over_50_carried_chunks(kind, models, bundles, features):
    rows = run_ladder(models[kind], bundles[kind], features, min_int8_agreement=0.7)
    steps = ["torch whole", "torch streaming", "onnxruntime fp32", "onnxruntime int8"]
    for streams in (1, 3):
        ours = [row for row in rows if row["streams"] == streams]
        assert [(row["from"], row["to"]) for row in ours] == list(pairwise(steps))
        for row in ours:
            assert row["chunks"] >= 50
            assert row["passed"], row
        for row in ours[:2]:
            assert row["max_error"] <= 1e-4
            assert row["token_agreement"] == 1.0
            assert row["first_divergent_chunk"] is None
        assert {"encoder_out", "next_state0", "next_state1", "decoder_out", "logit"} == {
            *ours[1]["errors"]
        }
        assert ours[2]["max_error"] > 1e-4, "int8 equal to fp32: was anything quantised?"


def test_a_wrong_bundle_fails_and_says_where(models, bundles, features):
    model = copy.deepcopy(models["conformer"])
    with torch.no_grad():
        model.encoder.layers[1].attention.key.bias.add_(0.5)
    rows = run_ladder(model, bundles["conformer"], features, num_chunks=4, streams=(1,))
    assert rows[0]["passed"]
    assert not rows[1]["passed"]
    assert rows[1]["first_divergent_chunk"] == 0


def test_streams_are_the_utterances_in_turn():
    one, two = torch.zeros(3, 2).numpy(), torch.ones(2, 2).numpy()
    joined = join_utterances([one, two], num_streams=3, length=7)
    assert joined[0, :, 0].tolist() == [0, 0, 0, 1, 1, 0, 0]
    assert joined[1, :, 0].tolist() == [1, 1, 0, 0, 0, 1, 1]
    assert joined[2, :, 0].tolist() == joined[0, :, 0].tolist()


def test_edit_distance_by_hand():
    assert edit_distance([1, 2, 3], [1, 3]) == 1
    assert edit_distance([1, 2, 3], [4, 2, 3, 5]) == 2
    assert token_agreement([[1, 2], []], [[1, 3], []]) == 0.5
    assert token_agreement([[]], [[]]) == 1.0


def slow_distance(one, other):
    if not one or not other:
        return len(one) + len(other)
    return min(
        slow_distance(one[1:], other) + 1,
        slow_distance(one, other[1:]) + 1,
        slow_distance(one[1:], other[1:]) + (one[0] != other[0]),
    )


@given(st.lists(st.integers(0, 2), max_size=5), st.lists(st.integers(0, 2), max_size=5))
def test_edit_distance_equals_its_definition(one, other):
    assert edit_distance(one, other) == slow_distance(one, other)
