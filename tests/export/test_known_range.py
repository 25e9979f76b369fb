"""int8 of a matrix that reads a tanh: its range is known, so rows do not mind each other."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.quantize import quantize_graph
from export.quantize.known_range import fix_known_ranges
from streaming.bundle import read_bundle
from streaming.session import open_session
from tests.export.conftest import KINDS

RNG = np.random.default_rng(0)


def write_graph(path, first):
    """y = first(x) @ w, `first` an operator of one input."""
    nodes = [
        helper.make_node(first, ["x"], ["bent"]),
        helper.make_node("MatMul", ["bent", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 24])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 40])
    weight = numpy_helper.from_array(RNG.standard_normal((24, 40)).astype(np.float32), "w")
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def run(path, x):
    return onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_row_is_the_same_in_any_company(tmp_path, per_channel):
    path = write_graph(tmp_path / "g.onnx", "Tanh")
    quantize_graph(path, tmp_path / "q.onnx", "int8", per_channel=per_channel)
    nodes = [node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node]
    assert "DynamicQuantizeLinear" not in nodes
    assert "MatMulInteger" in nodes
    x = RNG.standard_normal((8, 24)).astype(np.float32) * np.logspace(-2, 2, 8)[:, None]
    x = x.astype(np.float32)
    together = run(tmp_path / "q.onnx", x)
    alone = np.concatenate([run(tmp_path / "q.onnx", row[None]) for row in x])
    assert np.array_equal(together, alone)
    # 255 steps of [-1, 1] and of each row of the weight: half a step each, 24 terms.
    assert np.abs(together - run(path, x)).max() < 24 * (1 / 255 * 3 + 3 / 254)


def test_any_other_layer_finds_its_range_in_every_call(tmp_path):
    path = write_graph(tmp_path / "g.onnx", "Relu")
    quantize_graph(path, tmp_path / "q.onnx", "int8")
    model = ir.from_proto(onnx.load(tmp_path / "q.onnx"))
    before = [node.op_type for node in model.graph]
    assert "DynamicQuantizeLinear" in before
    fix_known_ranges(model.graph)
    assert [node.op_type for node in model.graph] == before


@pytest.mark.parametrize("kind", KINDS)
def test_joiners_of_bundles_join_rows_alone(bundles, kind):
    info = read_bundle(bundles[kind])
    assert info.default_precision == "int8"
    assert open_session(info).joins_rows_alone
