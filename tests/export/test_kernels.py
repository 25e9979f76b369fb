"""Faster kernels: each rewrite leaves the function unchanged, and is done only where it fits."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from export import kernels, passes


def build(text: str, **constants: np.ndarray) -> ir.Model:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    return ir.from_proto(model)


def run(model: ir.Model, *arrays: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))


def kinds_of(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("arguments", ["x, factor", "x, factor, offset"])
@pytest.mark.parametrize("num_streams", [1, 3])
def test_norms_as_instances(num_streams, arguments):
    text = f"""g (float[N, 5, 64] x) => (float[N, 5, 64] y) {{
        y = LayerNormalization<axis = -1, epsilon = 0.001>({arguments}) }}"""
    rng = np.random.default_rng(0)
    constants = {k: rng.standard_normal(64).astype(np.float32) for k in ("factor", "offset")}
    # Rows of very different level, one of them constant.
    x = rng.standard_normal((num_streams, 5, 64)) * [[[1e-3], [1], [50], [0], [3]]] + 1
    before = run(build(text, **constants), x.astype(np.float32))
    model = build(text, **constants)
    kernels.normalise_instances(model.graph)
    assert kinds_of(model)[:2] == ["InstanceNormalization", "Mul"]
    np.testing.assert_allclose(run(model, x.astype(np.float32))[0], before[0], rtol=0, atol=2e-5)


def test_norms_of_the_same_rows_share_their_constants():
    text = """g (float[N, 5, 8] x) => (float[N, 5, 8] y) {
        a = LayerNormalization<axis = -1>(x, factor)
        y = LayerNormalization<axis = -1>(a, factor) }"""
    model = build(text, factor=np.ones(8, dtype=np.float32))
    kernels.normalise_instances(model.graph)
    assert len(model.graph.initializers) == 3


@pytest.mark.parametrize("shape", ["N, 8", "N, T, 8", "N, 2, 3, 8"])
def test_norms_without_a_number_of_rows_stay(shape):
    text = f"""g (float[{shape}] x) => (float[{shape}] y) {{
        y = LayerNormalization<axis = -1>(x, factor) }}"""
    model = build(text, factor=np.ones(8, dtype=np.float32))
    kernels.normalise_instances(model.graph)
    assert kinds_of(model) == ["LayerNormalization"]


@pytest.mark.parametrize(
    ("attributes", "channels"),
    [
        ("group = 16", 1),
        ("strides = [2]", 16),
        ("strides = [2], pads = [1, 2], dilations = [2], kernel_shape = [3]", 16),
        ("group = 4, pads = [2, 0]", 4),
    ],
)
def test_convolutions_in_2d(attributes, channels):
    text = f"""g (float[N, 16, 20] x) => (float[N, 16, T] y) {{
        y = Conv<{attributes}>(x, weight, bias) }}"""
    rng = np.random.default_rng(0)
    constants = {
        "weight": rng.standard_normal((16, channels, 3)).astype(np.float32),
        "bias": rng.standard_normal(16).astype(np.float32),
    }
    x = rng.standard_normal((3, 16, 20)).astype(np.float32)
    before = run(build(text, **constants), x)
    model = build(text, **constants)
    kernels.convolve_in_2d(model.graph)
    assert kinds_of(model) == ["Reshape", "Conv", "Reshape"]
    np.testing.assert_allclose(run(model, x)[0], before[0], rtol=0, atol=1e-5)


def test_convolution_of_an_input_stays():
    text = "g (float[N, 4, 9] x, float[4, 4, 3] w) => (float[N, 4, 7] y) { y = Conv(x, w) }"
    model = build(text)
    kernels.convolve_in_2d(model.graph)
    assert kinds_of(model) == ["Conv"]


def test_an_output_is_joined_with_its_first_axis():
    text = """g (float[N, 2] p, float[N, 3] q) => (float[1, N, 5] y) {
        a = Concat<axis = 1>(p, q)  y = Unsqueeze(a, first) }"""
    constants = {"first": np.array([0])}
    arrays = [np.arange(n * 2, dtype=np.float32).reshape(2, n) for n in (2, 3)]
    before = run(build(text, **constants), *arrays)
    model = build(text, **constants)
    passes.raise_axes(model.graph)
    assert kinds_of(model) == ["Unsqueeze", "Unsqueeze", "Concat"]
    np.testing.assert_array_equal(run(model, *arrays)[0], before[0])


def test_an_inner_unsqueeze_stays():
    text = """g (float[N, 2] p, float[N, 3] q) => (float[1, N, 5] y) {
        a = Concat<axis = 1>(p, q)  b = Unsqueeze(a, first)  y = Relu(b) }"""
    model = build(text, first=np.array([0]))
    passes.raise_axes(model.graph)
    assert kinds_of(model) == ["Concat", "Unsqueeze", "Relu"]


BLOCK = """g (float[N, 2, 4] x) => (float[N, 2, 4] y) {{
    t = Transpose<perm = [0, 2, 1]>(x)  {product}  b = Add(j, bias)  y = Mul(b, half) }}"""
PRODUCTS = {
    "split": """g = Gather<axis = 1>(t, flat)  k = Transpose<perm = [0, 2, 1]>(g)
        p, q = Split<axis = -1>(k)  u = MatMul(p, w0)  v = MatMul(q, w1)
        j = Concat<axis = -1>(u, v)""",
    "batched": """g = Gather<axis = 1>(t, columns)  k = Transpose<perm = [0, 1, 3, 2]>(g)
        m = MatMul(k, w)  n = Transpose<perm = [0, 2, 1, 3]>(m)  j = Reshape(n, shape)""",
}


@pytest.mark.parametrize("form", PRODUCTS)
def test_scales_fold_into_block_layers(form):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((2, 3, 2)).astype(np.float32)
    columns = np.array([[0, 1, 3], [1, 2, 3]])
    everything = {
        "columns": columns,
        "flat": columns.reshape(-1),
        "w": weight,
        "w0": weight[0],
        "w1": weight[1],
        "shape": np.array([0, 0, 4]),
        "bias": np.ones(4, dtype=np.float32),
        "half": np.array(0.5, dtype=np.float32),
    }
    text = BLOCK.format(product=PRODUCTS[form])
    constants = {name: value for name, value in everything.items() if name in text}
    x = rng.standard_normal((3, 2, 4)).astype(np.float32)
    before = run(build(text, **constants), x)
    model = build(text, **constants)
    passes.fold_scales(model.graph)
    assert "Mul" not in kinds_of(model)
    np.testing.assert_allclose(run(model, x)[0], before[0], rtol=1e-5, atol=1e-6)
