"""int8: nothing is skipped in silence, and every layer says how many bits it has."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.quantize import (
    check_nothing_skipped,
    list_layers,
    quantize_graph,
)
from streaming.bundle import read_bundle


def kinds_of(path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_conformer_linears_are_all_int8(bundles):
    fp32, int8 = (kinds_of(bundles["conformer"] / f"encoder{p}.onnx") for p in ("", ".int8"))
    attention = 2 * 2  # two layers multiply activations twice: no weight there
    assert fp32.count("MatMul") - attention == int8.count("MatMulInteger") == 2 * 11 + 1
    assert int8.count("MatMul") == attention


def test_lstm_is_quantised_too(bundles):
    kinds = kinds_of(bundles["lstm"] / "encoder.int8.onnx")
    assert kinds.count("DynamicQuantizeLSTM") == 2
    assert "LSTM" not in kinds
    sizes = [(bundles["lstm"] / f"encoder{p}.onnx").stat().st_size for p in ("", ".int8")]
    assert sizes[1] < 0.6 * sizes[0]


def test_embedding_is_quantised_too(bundles):
    model = onnx.load(bundles["conformer"] / "decoder.int8.onnx")
    widest = max(model.graph.initializer, key=lambda i: np.prod(i.dims))
    assert widest.data_type == TensorProto.UINT8  # embeddings keep a zero point
    assert list(widest.dims) == [40, 20]


@pytest.mark.parametrize("kind", ["conformer", "lstm"])
def test_layers_are_the_torch_weights(kind, bundles, models):
    layers = {layer["name"]: layer for layer in read_bundle(bundles[kind]).layers}
    state = models[kind].state_dict()
    matrices = {
        name.removesuffix(".weight"): list(value.shape)
        for name, value in state.items()
        if value.ndim > 1
    }
    assert {name: layer["shape"] for name, layer in layers.items()} == matrices
    for name, layer in layers.items():
        assert layer["bits"] == {"convolution": 16, "mul": 32}.get(layer["kind"], 8), name
        assert layer["sparsity"] == 0.0


def write_linear(path, weight, hide=False):
    """y = x @ weight; `hide` leaves a Transpose on it, as an unfolded export does."""
    names = ["x", "turned" if hide else "w"]
    nodes = [helper.make_node("MatMul", names, ["y"])]
    if hide:
        nodes.insert(0, helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]))
        weight = weight.T
    sides = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None])] for name in ("x", "y")
    ]
    constant = numpy_helper.from_array(np.ascontiguousarray(weight), "w")
    graph = helper.make_graph(nodes, "g", *sides, [constant])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_hidden_weight_is_an_error(tmp_path):
    path = write_linear(tmp_path / "g.onnx", np.ones((64, 32), dtype=np.float32), hide=True)
    with pytest.raises(
        ExportError, match="quantising skipped w, read by Transpose: fold constants"
    ):
        quantize_graph(path, tmp_path / "q.onnx")
    assert not (tmp_path / "q.onnx").exists()


def test_kept_layer_stays_fp32(tmp_path):
    path = write_linear(tmp_path / "g.onnx", np.ones((64, 32), dtype=np.float32))
    layers = quantize_graph(path, tmp_path / "q.onnx", forms={"w": "fp32"})
    assert [(layer["name"], layer["bits"]) for layer in layers] == [("w", 32)]
    assert kinds_of(tmp_path / "q.onnx") == ["MatMul"]
    with pytest.raises(ExportError, match="quantising skipped"):
        check_nothing_skipped(onnx.load(tmp_path / "q.onnx"))


def test_sparsity_and_shape_by_hand(tmp_path):
    weight = np.array([[0, 2, 0], [3, 0, 0]], dtype=np.float32)
    layers = list_layers(onnx.load(write_linear(tmp_path / "g.onnx", weight)))
    assert layers == [
        {
            "name": "w",
            "kind": "linear",
            "shape": [3, 2],
            "sparsity": 0.6667,
            "bits": 32,
            "form": "fp32",
        }
    ]


def test_per_channel_halves_the_error_of_unequal_columns(tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 32)) * np.geomspace(1, 17, 32)
    path = write_linear(tmp_path / "g.onnx", weight.astype(np.float32))
    x = rng.standard_normal((50, 64)).astype(np.float32)
    errors = []
    for per_channel in (False, True):
        quantize_graph(path, tmp_path / "q.onnx", per_channel=per_channel)
        y = onnxruntime.InferenceSession(str(tmp_path / "q.onnx")).run(None, {"x": x})[0]
        errors.append(float(np.mean(np.abs(y - x @ weight) / np.abs(x @ weight).mean(0))))
    assert errors[1] < 0.6 * errors[0]


def test_metadata_survives(bundles):
    for graph in ("encoder", "decoder", "joiner"):
        found = [
            {e.key: e.value for e in onnx.load(bundles["lstm"] / name).metadata_props}
            for name in (f"{graph}.onnx", f"{graph}.int8.onnx")
        ]
        assert found[0] == found[1]


def test_convolutions_are_stored_as_float16_and_widened_on_loading(bundles, tmp_path):
    path = bundles["conformer"] / "encoder.int8.onnx"
    kinds = kinds_of(path)
    assert kinds.count("Conv") == 4
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options)
    loaded = onnx.load(tmp_path / "loaded.onnx").graph
    assert "Cast" not in {node.op_type for node in loaded.node}
    convolved = [n for n in loaded.node if n.op_type in ("Conv", "FusedConv")]
    names = {i.name for i in loaded.initializer if i.data_type == TensorProto.FLOAT}
    assert len(convolved) == 4
    assert {node.input[1] for node in convolved} <= names
