"""nn.LSTM by torch-pruning's graph: pruned = dense with those units zeroed, in all its forms."""

from __future__ import annotations

import copy

import pytest
import torch
import torch_pruning as tp
from torch import nn

from compress.shrink.lstm import (
    LstmPruner,
    OneOperationLstm,
    gates_of,
    num_outputs,
    reorder_cells_,
    reorder_outputs_,
)

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
FORMS = {
    "one layer": {},
    "three layers": {"num_layers": 3},
    "projection": {"proj_size": 5},
    "two layers with projections": {"num_layers": 2, "proj_size": 5},
    "no biases": {"num_layers": 2, "bias": False},
    "batch first": {"batch_first": True},
}
PRUNER = LstmPruner()
REMOVED = [0, 3]


class Stack(nn.Module):
    """A module before, the LSTM, and one behind, with everything random."""

    def __init__(self, form):
        super().__init__()
        torch.manual_seed(0)
        self.before = nn.Linear(4, 6)
        self.lstm = nn.LSTM(6, 8, **FORMS[form])
        self.after = nn.Linear(num_outputs(self.lstm), 3)

    def forward(self, x):
        return self.after(self.lstm(self.before(x))[0])


def say(stack):
    x = torch.randn(7, 2, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return stack(x)


def prune(stack, module, idxs):
    """Through torch-pruning's graph, which finds what depends on the units."""
    narrow = copy.deepcopy(stack)
    narrow.lstm.__class__ = OneOperationLstm
    graph = tp.DependencyGraph().build_dependency(
        narrow, torch.zeros(7, 2, 4), customized_pruners={OneOperationLstm: PRUNER}, verbose=False
    )
    target = getattr(narrow, module)
    function = graph.get_pruner_of_module(target).prune_out_channels
    graph.get_pruning_group(target, function, idxs).prune()
    narrow.lstm.__class__ = nn.LSTM
    return narrow


@torch.no_grad()
def zero(stack, idxs, number, cells):
    """The slow twin: every value of these units of layer `number`, made or read, is 0."""
    lstm = stack.lstm
    for index in idxs:
        if cells or not lstm.proj_size:
            for kind in ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if lstm.bias else ())):
                for gate in range(4):
                    getattr(lstm, f"{kind}_l{number}")[gate * lstm.hidden_size + index] = 0
        if cells:
            getattr(lstm, f"weight_hr_l{number}")[:, index] = 0
            continue
        if lstm.proj_size:
            getattr(lstm, f"weight_hr_l{number}")[index] = 0
        getattr(lstm, f"weight_hh_l{number}")[:, index] = 0
        if number + 1 < lstm.num_layers:
            getattr(lstm, f"weight_ih_l{number + 1}")[:, index] = 0


@pytest.mark.parametrize("form", FORMS)
def test_outputs(form):
    stack = Stack(form)
    narrow = prune(stack, "lstm", REMOVED)
    for number in range(stack.lstm.num_layers):
        zero(stack, REMOVED, number, cells=False)
    width = num_outputs(stack.lstm) - 2
    assert narrow.after.in_features == num_outputs(narrow.lstm) == width
    torch.testing.assert_close(say(narrow), say(stack), **CLOSE)


@pytest.mark.parametrize("form", FORMS)
def test_inputs(form):
    stack = Stack(form)
    narrow = prune(stack, "before", REMOVED)
    with torch.no_grad():
        stack.before.weight[REMOVED] = stack.before.bias[REMOVED] = 0
    assert narrow.lstm.input_size == narrow.before.out_features == 4
    torch.testing.assert_close(say(narrow), say(stack), **CLOSE)


@pytest.mark.parametrize("form", [form for form in FORMS if "projection" in form])
def test_cells_behind_projections(form):
    stack = Stack(form)
    narrow = copy.deepcopy(stack)
    PRUNER.prune_cells(narrow.lstm, REMOVED)
    for number in range(stack.lstm.num_layers):
        zero(stack, REMOVED, number, cells=True)
    assert (narrow.lstm.hidden_size, narrow.lstm.proj_size) == (6, 5)
    torch.testing.assert_close(say(narrow), say(stack), **CLOSE)


@pytest.mark.parametrize("form", FORMS)
def test_a_pruned_module_is_an_ordinary_one(form):
    """Rebuilt from its sizes, trained a step, and it runs step by step as at once."""
    narrow = prune(Stack(form), "lstm", REMOVED)
    lstm = narrow.lstm
    sizes = {**FORMS[form]} | ({"proj_size": lstm.proj_size} if lstm.proj_size else {})
    rebuilt = nn.LSTM(lstm.input_size, lstm.hidden_size, **sizes)
    rebuilt.load_state_dict(lstm.state_dict())
    x = torch.randn(5, 1, 6)
    if lstm.batch_first:
        x = x.transpose(0, 1)
    torch.testing.assert_close(rebuilt(x)[0], lstm(x)[0], **CLOSE)
    time = 1 if lstm.batch_first else 0
    state, parts = None, []
    for frame in x.split(1, dim=time):
        part, state = lstm(frame, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, time), lstm(x)[0], **CLOSE)
    before = lstm.weight_hh_l0.clone()
    optimizer = torch.optim.SGD(narrow.parameters(), lr=0.1)
    narrow(torch.randn(5, 5, 4)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(lstm.weight_hh_l0, before)


@pytest.mark.parametrize("form", ["three layers", "two layers with projections"])
def test_every_layer_may_lose_units_of_its_own(form):
    """Brought to the same places first; only the last layer's places are seen outside."""
    stack = Stack(form)
    ordered, lstm = copy.deepcopy(stack), stack.lstm
    own = [[2, 4], [1, 3], REMOVED] if lstm.num_layers == 3 else [[2, 4], REMOVED]
    for number, removed in enumerate(own[:-1]):
        order = torch.arange(num_outputs(lstm))
        for place, index in zip(REMOVED, removed, strict=True):
            order[[place, index]] = order[[index, place]]
        reorder_outputs_(ordered.lstm, number, order)
    torch.testing.assert_close(say(ordered), say(stack), **CLOSE)  # an order changes nothing
    narrow = prune(ordered, "lstm", REMOVED)
    for number, removed in enumerate(own):
        zero(stack, removed, number, cells=False)
    torch.testing.assert_close(say(narrow), say(stack), **CLOSE)


def test_every_layer_may_lose_cells_of_its_own():
    stack = Stack("two layers with projections")
    ordered = copy.deepcopy(stack)
    reorder_cells_(ordered.lstm, 1, torch.tensor([5, 1, 2, 7, 4, 0, 6, 3]))
    torch.testing.assert_close(say(ordered), say(stack), **CLOSE)
    PRUNER.prune_cells(ordered.lstm, REMOVED)
    zero(stack, REMOVED, 0, cells=True)
    zero(stack, [5, 7], 1, cells=True)
    torch.testing.assert_close(say(ordered), say(stack), **CLOSE)


def test_what_does_not_exist_is_refused():
    with pytest.raises(AssertionError, match="cells are outputs"):
        PRUNER.prune_cells(nn.LSTM(2, 3), [0])
    with pytest.raises(AssertionError, match="backward direction"):
        PRUNER.prune_out_channels(nn.LSTM(2, 3, bidirectional=True), [0])


def test_units_have_four_values_where_gates_are_stacked():
    stack = Stack("two layers with projections")
    found = {name: gates_of(stack, name) for name, _ in stack.named_parameters()}
    assert {name for name, count in found.items() if count == 1} == {
        "before.weight", "before.bias", "after.weight", "after.bias",
        "lstm.weight_hr_l0", "lstm.weight_hr_l1",
    }  # fmt: skip
