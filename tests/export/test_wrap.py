"""The packed state: nothing lost, zero stays zero, streams stay apart."""

from __future__ import annotations

import pytest
import torch

from export.errors import ExportError
from export.wrap import EncoderExport, StateLayout, group_shapes
from tests.export.conftest import KINDS


def test_groups_by_hand():
    shapes = [(3, 80), (32, 8), (32, 9), (5, 14), (7,), (32, 4), (6, 14)]
    groups = group_shapes(shapes, range(len(shapes)))
    assert [(g.axis, g.members, g.shape) for g in groups] == [
        (2, (1, 2, 5), (32, 21)),
        (1, (3, 6), (11, 14)),
        (2, (0,), (3, 80)),
        (None, (4,), (7,)),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_pack_and_unpack_give_the_state_back(kind, models):
    encoder = models[kind].encoder
    layout = StateLayout(encoder.initial_state(1))
    state = tuple(torch.randn_like(part) for part in encoder.initial_state(3))
    packed = layout.pack(state)
    assert [tuple(part.shape) for part in packed] == [(1, 3, size) for size in layout.sizes]
    for part, again in zip(state, layout.unpack(*packed), strict=True):
        assert torch.equal(part, again)
    assert not any(part.any() for part in layout.pack(encoder.initial_state(2)))


def test_packed_state_keeps_streams_apart(models):
    encoder = models["conformer"].encoder
    layout = StateLayout(encoder.initial_state(1))
    state = tuple(torch.randn_like(part) for part in encoder.initial_state(3))
    together = layout.pack(state)
    for row in range(3):
        alone = layout.pack(tuple(part[row : row + 1] for part in state))
        for one, all_ in zip(alone, together, strict=True):
            assert torch.equal(one, all_[:, row : row + 1])


@pytest.mark.parametrize("kind", KINDS)
def test_export_form_equals_the_encoder(kind, models):
    encoder = models[kind].encoder
    wrapped = EncoderExport(encoder)
    state = tuple(torch.rand_like(part) for part in encoder.initial_state(2))
    x = torch.randn(2, encoder.chunk_frames, 80)
    with torch.no_grad():
        encoded, *packed = wrapped(x, *wrapped.layout.pack(state))
        expected, next_state = encoder.streaming_forward(x, state)
    assert torch.equal(encoded, expected)
    for part, again in zip(next_state, wrapped.layout.unpack(*packed), strict=True):
        assert torch.equal(part, again)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ((torch.ones(1, 2), torch.zeros(1, 3)), "must be zero float32"),
        ((torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 3)), "must be zero float32"),
        ((torch.zeros(1, 2),), "at least two tensors"),
    ],
)
def test_states_that_sherpa_cannot_start(state, message):
    with pytest.raises(ExportError, match=message):
        StateLayout(state)
