"""Rounding in torch is what onnxruntime computes, in value; its gradient is that of the papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress.quantize.lstm import round_chunks
from compress.quantize.rounding import (
    input_grid,
    round_gemm,
    round_half,
    round_in_call,
    round_input,
    round_rows,
    round_tanh,
)
from export.graph import export_graph
from export.quantize import quantize_graph
from export.sparse_int8 import input_scale
from tests.export.test_quantize import write_linear
from tests.export.test_quantize_parts import run, write_biased
from tests.reference.quantize import integer_linear
from tests.reference.sparse import keep_blocks_

ENDS = (-1.25, 2.125)  # of values that reach beyond both; float32 holds them


def make_layer(pruned: bool) -> tuple[torch.Tensor, ...]:
    """x (9, 20), weight (12, 20), bias (12,)."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((9, 20), (12, 20), 12))
    if pruned:
        weight[torch.rand(weight.shape, generator=generator) < 0.8] = 0
        weight[3] = 0
    return x, weight, bias


def compute(x, weight, bias, gemm: bool):
    """The layer as a twin has it."""
    low, high = map(torch.tensor, ENDS)
    if gemm:
        weight, bias = round_gemm(weight, bias, input_grid(low, high)[0])
    else:
        weight = round_rows(weight)
    return F.linear(round_input(x, low, high), weight, bias)


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("biased", [False, True])
def test_a_layer_is_what_onnxruntime_computes(pruned, axes, biased, tmp_path):
    x, weight, bias = make_layer(pruned)
    matrix, path = weight.T.numpy(), tmp_path / "g.onnx"
    if biased:
        write_biased(path, matrix, bias.numpy(), axes)
    else:
        bias = torch.zeros(12)
        write_linear(path, matrix)
    quantize_graph(path, tmp_path / "q.onnx", "static", ranges={"w": ENDS})
    shape = (9, 20) if axes == 2 or not biased else (3, 3, 20)
    found = run(tmp_path / "q.onnx", x.reshape(shape).numpy()).reshape(9, 12)
    gemm = biased and axes == 2
    ours = compute(x, weight, bias if biased else None, gemm).numpy()
    np.testing.assert_allclose(ours, found, rtol=1e-5, atol=2e-6)
    slow = integer_linear(x.numpy(), weight.numpy(), bias.numpy(), *ENDS, gemm)
    filled = weight.any(1).numpy()  # a row of zeros has a step of its own for its bias
    np.testing.assert_allclose(ours[:, filled], slow[:, filled], rtol=1e-5, atol=2e-6)
    assert abs(ours - F.linear(x, weight, bias).numpy()).max() > 1e-3, "it did round"


@pytest.mark.parametrize(("rows", "axes"), [(3, 3), (12, 2)])  # four groups; one: a product
def test_a_layer_of_blocks(rows, axes, tmp_path):
    x, weight, bias = make_layer(pruned=False)
    layer = nn.Linear(20, 12)
    layer.weight.data, layer.bias.data = weight, bias
    keep_blocks_(layer.weight, rows, 8)
    x = x[:8].reshape(2, 4, 20) if axes == 3 else x[:8]
    inputs, paths = {"x": x}, (tmp_path / "g.onnx", tmp_path / "q.onnx")
    module = nn.Sequential(layer)
    export_graph(module, inputs, ["y"], [0], {}, paths[0], {"0": rows})
    quantize_graph(*paths, "static", ranges={"0": ENDS})
    ours = compute(x, layer.weight, layer.bias, gemm=rows == 12 and axes == 2)
    np.testing.assert_allclose(ours.detach(), run(paths[1], x.numpy()), rtol=1e-5, atol=2e-6)


def test_the_grid_is_the_exported_one_to_the_bit():
    generator = np.random.default_rng(0)
    for _ in range(200):
        low, high = (float(np.float32(v)) for v in generator.lognormal(0, 2, 2) * [-1, 1])
        ours = input_grid(torch.tensor(low), torch.tensor(high))
        assert [float(part) for part in ours] == [float(part) for part in input_scale(low, high)]
    assert [float(part) for part in input_grid(torch.tensor(0.0), torch.tensor(0.0))] == [1, 0]


def test_gradient_by_hand():
    x = torch.tensor([0.126, 2.0, -3.0], requires_grad=True)
    low, high = torch.tensor(-1.0, requires_grad=True), torch.tensor(1.55, requires_grad=True)
    rounded = round_input(x, low, high)
    assert rounded.tolist() == pytest.approx([0.13, 1.55, -1.0])
    rounded.backward(torch.tensor([3.0, 5.0, 7.0]))
    assert x.grad.tolist() == [3, 0, 0]
    inside = 3 * (13 - 12.6) / 255
    assert float(high.grad) == pytest.approx(5 + inside, rel=1e-4)
    assert float(low.grad) == pytest.approx(7 - inside, rel=1e-4)


@pytest.mark.parametrize("side", ["low", "high"])
def test_gradient_of_a_range_is_the_slope_of_the_error(side):
    """Over many values the steps of rounding average out, and the error is smooth in the range:
    clipping makes it larger below, coarser steps above. Central differences over a tenth."""
    sign = -1.0 if side == "low" else 1.0
    x = sign * torch.linspace(0, 1.2, 100_001)

    def error(end):
        ends = (end, torch.tensor(0.0)) if side == "low" else (torch.tensor(0.0), end)
        return (round_input(x, *ends) - x).square().mean()

    for size in (0.8, 1.0, 1.3, 2.0):
        end = torch.tensor(sign * size, requires_grad=True)
        error(end).backward()
        with torch.no_grad():
            slope = (error(end * 1.05) - error(end * 0.95)) / (0.1 * size * sign)
        assert float(end.grad) == pytest.approx(float(slope), rel=0.06), size


@pytest.mark.parametrize("name", ["rows", "half", "in_call"])
def test_weights_get_the_gradient_of_doing_nothing(name):
    roundings = {
        "rows": round_rows,
        "half": round_half,
        "in_call": lambda x: round_in_call(x, 1),
    }
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rounded = roundings[name](x)
    assert not torch.equal(rounded, x)
    weights = torch.arange(35.0).reshape(5, 7)
    (rounded * weights).sum().backward()
    assert torch.equal(x.grad, weights)


def test_zeros_stay_zeros_in_every_form():
    _, weight, bias = make_layer(pruned=True)
    zero = weight == 0
    step = torch.tensor(0.01)
    for rounded in (round_rows(weight), round_half(weight), round_gemm(weight, bias, step)[0]):
        assert not rounded[zero].any()
        assert not rounded[zero].signbit().any()


def test_a_chunk_is_rounded_by_its_own_range():
    x = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    x[:, 4:] *= 100
    found = round_chunks(x, 4)
    wanted = torch.cat([round_in_call(x[:, :4], 1), round_in_call(x[:, 4:], 1)], 1)
    assert torch.equal(found, wanted)
    assert (found[:, :4] - x[:, :4]).abs().max() < 0.02


def test_tanh_is_rounded_as_any_input():
    x = torch.tanh(torch.linspace(-9, 9, 10_001))
    assert torch.equal(round_tanh(x), round_input(x, torch.tensor(-1.0), torch.tensor(1.0)))


def test_autocast_does_not_reach_the_rounding():
    x = torch.linspace(-2, 3, 999)
    wanted = round_input(x, *map(torch.tensor, ENDS))
    with torch.autocast("cpu", torch.bfloat16):
        found = round_input(x, *map(torch.tensor, ENDS))
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
