"""The penalty on blank: chosen by word errors, written into the joiner, zero when nothing helps."""

from __future__ import annotations

import pytest
import torch

from compress import calibrate
from compress.calibrate import calibrate_blank
from tests.tiny_teacher import build_teacher


class Store:
    """Speech in which the model hears one word more for each 0.5 of penalty."""

    def __init__(self, said):
        self.said = said


@pytest.fixture
def model(monkeypatch):
    model = build_teacher()
    before = float(model.joiner.output.bias[0].detach())

    def decode(model, store, tokenizer):
        penalty = before - float(model.joiner.output.bias[0].detach())
        return [store.said], [" ".join(["on"] * round(2 * penalty))]

    monkeypatch.setattr(calibrate, "decode_store", decode)
    return model


@pytest.mark.parametrize(("said", "wanted"), [("on on", 1.0), ("on on on", 1.5), ("off", 0.0)])
def test_takes_the_penalty_with_the_fewest_errors(model, said, wanted):
    before = model.joiner.output.bias.detach().clone()
    assert calibrate_blank(model, [Store(said)], None) == wanted
    after = model.joiner.output.bias.detach()
    assert float(before[0] - after[0]) == pytest.approx(wanted, abs=1e-5)
    assert torch.equal(before[1:], after[1:])


def test_pools_the_sets(model):
    """Two sets that want 2.0 outvote one that wants 0.5."""
    stores = [Store("on " * 4), Store("on"), Store("on " * 4)]
    assert calibrate_blank(model, stores, None) == 2.0
