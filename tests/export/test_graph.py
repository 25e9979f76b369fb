"""Graphs are small, standard and clean; each rewrite leaves the function unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export import passes
from export.errors import ExportError
from export.graph import _short_names, export_graph, lower_opset
from export.lstm import LstmExport
from streaming.bundle import read_bundle
from tests.export.conftest import KINDS
from tests.export.form_bundles import PRECISIONS, SOURCES


def assert_clean(path: Path) -> None:
    model = onnx.load(path)
    assert model.ir_version == 8
    assert {(o.domain, o.version) for o in model.opset_import} <= {("", 17), ("com.microsoft", 1)}
    assert not model.graph.value_info
    assert not any(n.metadata_props or n.name or n.doc_string for n in model.graph.node)
    read = {name for node in model.graph.node for name in node.input}
    assert {i.name for i in model.graph.initializer} <= read
    constants = {i.name for i in model.graph.initializer}
    opening = {"DequantizeLinear", "Cast"}  # int8 and half weights, widened once when it loads
    for node in model.graph.node:
        assert not {*node.input} <= constants or node.op_type in opening, "not folded"
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        assert [d.dim_param for d in dims].count("N") == 1
    data = path.read_bytes()
    for place in (b".py", b"/tmp", str(Path.home()).encode(), str(Path.cwd()).encode()):
        assert place == b"/" or place not in data


@pytest.mark.parametrize("graph", ["encoder", "decoder", "joiner"])
@pytest.mark.parametrize("kind", KINDS)
def test_exported_graphs_are_clean(kind, graph, bundles):
    for precision in ("", ".int8"):
        path = bundles[kind] / f"{graph}{precision}.onnx"
        assert_clean(path)
        model = onnx.load(path)
        read = {name for node in model.graph.node for name in node.input}
        assert {value.name for value in model.graph.input} <= read


# onnxruntime's own operators that a form needs; its card names them.
OWN = {"int4": {"MatMulNBits", "DynamicQuantizeLSTM"}, "fp32": set()}
OWN |= {"int8": {"DynamicQuantizeLSTM"}, "static": {"DynamicQuantizeLSTM"}}


@pytest.mark.parametrize("graph", ["encoder", "decoder", "joiner"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("target", SOURCES)
def test_every_precision_is_clean(target, precision, graph, forms):
    info = read_bundle(forms[target, "onnx"])
    path = info.graph_path(graph, precision)
    assert_clean(path)
    model = onnx.load(path)
    own = {node.op_type for node in model.graph.node if node.domain == "com.microsoft"}
    assert own <= OWN[precision] - ({"DynamicQuantizeLSTM"} if target == "sherpa_lstm" else set())
    assert "MatMulNBits" in own or precision != "int4" or graph == "decoder"
    assert {node.domain for node in model.graph.node} <= {"", "com.microsoft"}
    assert len(model.graph.input) <= 5, "states are packed"


def test_conformer_has_no_wasted_nodes(bundles):
    model = onnx.load(bundles["conformer"] / "encoder.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert not {"Identity", "Constant", "Shape", "Gemm", "IsNaN", "Cast"} & set(kinds)
    # 72 a layer; 43 for the front end, the mask, unpacking and packing the state.
    assert len(kinds) <= 2 * 72 + 43


def run(model: ir.Model | onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feed)


def build(text: str, **constants: np.ndarray) -> ir.Model:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    return ir.from_proto(model)


def kinds_of(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_fold_scales_through_transpose_and_reshape():
    text = """g (float[N, 2, 4] x) => (float[N, 3, 2] y) {
        a = MatMul(x, w)  b = Add(a, bias)  c = Transpose<perm = [0, 2, 1]>(b)
        d = Reshape(c, shape)  y = Mul(half, d) }"""
    constants = {
        "w": np.arange(12, dtype=np.float32).reshape(4, 3),
        "bias": np.ones(3, dtype=np.float32),
        "shape": np.array([-1, 3, 2]),
        "half": np.array(0.5, dtype=np.float32),
    }
    feed = {"x": np.random.default_rng(0).standard_normal((2, 2, 4)).astype(np.float32)}
    before = run(build(text, **constants), feed)
    model = build(text, **constants)
    passes.fold_scales(model.graph)
    assert kinds_of(model) == ["MatMul", "Add", "Transpose", "Reshape"]
    np.testing.assert_allclose(run(model, feed)[0], before[0], rtol=1e-6)


def test_fold_scales_leaves_a_shared_result_alone():
    model = build(
        """g (float[N, 2] x) => (float[N, 2] y, float[N, 2] z) {
        a = MatMul(x, w)  y = Mul(a, half)  z = Add(a, a) }""",
        w=np.eye(2, dtype=np.float32),
        half=np.array(0.5, dtype=np.float32),
    )
    passes.fold_scales(model.graph)
    assert kinds_of(model) == ["MatMul", "Mul", "Add"]


def test_fold_scales_copies_a_shared_bias():
    text = """g (float[N, 2] x) => (float[N, 2] y, float[N, 2] z) {
        a = MatMul(x, w)  b = Add(a, bias)  c = Mul(b, half)  y = Relu(c)  z = Add(x, bias) }"""
    constants = {
        "w": np.eye(2, dtype=np.float32),
        "bias": np.array([2, 4], dtype=np.float32),
        "half": np.array([0.5], dtype=np.float32),
    }
    model = build(text, **constants)
    passes.fold_scales(model.graph)
    assert kinds_of(model) == ["MatMul", "Add", "Relu", "Add"]
    y, z = run(model, {"x": np.array([[1, 1]], dtype=np.float32)})
    assert y.tolist() == [[1.5, 2.5]]
    assert z.tolist() == [[3, 5]]


def test_sink_slices_when_all_cut_alike():
    text = """g (float[N, 5, 2] p, float[N, 5, 3] q) => (float[N, 2, 5] y) {
        a = Slice(p, start, end, axis)  b = Slice(q, start, end, axis)
        y = Concat<axis = 2>(a, b) }"""
    constants = {"start": np.array([-2]), "end": np.array([2**31]), "axis": np.array([1])}
    rng = np.random.default_rng(0)
    feed = {name: rng.random((2, 5, n), dtype=np.float32) for name, n in (("p", 2), ("q", 3))}
    before = run(build(text, **constants), feed)
    model = build(text, **constants)
    passes.sink_slices(model.graph)
    graph = model.graph
    assert [n.op_type for n in graph if any(o.uses() or o.is_graph_output() for o in n.outputs)][
        -2:
    ] == ["Concat", "Slice"]
    np.testing.assert_array_equal(run(model, feed)[0], before[0])


def test_split_gemm_keeps_the_weight_name():
    text = "g (float[N, 2] x) => (float[N, 3] y) { y = Gemm<transB = 1>(x, w, bias) }"
    rng = np.random.default_rng(0)
    constants = {"w": rng.random((3, 2), dtype=np.float32), "bias": np.ones(3, dtype=np.float32)}
    feed = {"x": rng.random((4, 2), dtype=np.float32)}
    before = run(build(text, **constants), feed)
    model = build(text, **constants)
    passes.split_gemm(model.graph)
    assert kinds_of(model) == ["MatMul", "Add"]
    assert "w" in model.graph.initializers
    np.testing.assert_allclose(run(model, feed)[0], before[0], rtol=1e-6)


def test_short_names():
    names = _short_names()
    assert [next(names) for _ in range(28)][-3:] == ["z", "aa", "ab"]


def test_lower_opset_refuses_what_changed():
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"])
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in "xy"]
    axes = numpy_helper.from_array(np.array([1]), "axes")
    graph = helper.make_graph([node], "g", value[:1], value[1:], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(ExportError, match=r"ReduceMean .*opset 18"):
        lower_opset(model)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("batch_first", [True, False])
def test_lstm_in_onnx_order_equals_torch(num_layers, batch_first):
    torch.manual_seed(0)
    lstm = nn.LSTM(5, 7, num_layers, batch_first=batch_first)
    x = torch.randn(3, 3, 5)
    state = (torch.randn(num_layers, 3, 7), torch.randn(num_layers, 3, 7))
    with torch.no_grad():
        expected, (h, c) = lstm(x, state)
        found, (found_h, found_c) = LstmExport(lstm)(x, state)
    for one, other in ((expected, found), (h, found_h), (c, found_c)):
        torch.testing.assert_close(one, other)


def test_lstm_with_projection_is_refused():
    with pytest.raises(ExportError, match="no projection"):
        LstmExport(nn.LSTM(4, 6, proj_size=2))


class TwoInputs(nn.Module):
    def forward(self, a, b):
        return a - b


def test_one_example_for_two_inputs_gives_two_inputs(tmp_path):
    example = torch.zeros(2, 3)
    path = tmp_path / "g.onnx"
    export_graph(TwoInputs(), {"a": example, "b": example}, ["y"], [0, 0], {"k": 1}, path)
    model = onnx.load(path)
    assert [*model.graph.node[0].input] == ["a", "b"]
    assert [(e.key, e.value) for e in model.metadata_props] == [("k", "1")]
