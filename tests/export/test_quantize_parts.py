"""The parts of export/quantize against slow twins, by hand, and what they refuse."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.quantize import calibrate, check_method, list_layers, quantize_graph
from export.quantize.calibration import Observer, cut_chunks
from export.quantize.forms import FORMS, find_form, plan_forms
from export.quantize.int4 import choose_block, pack_nibbles, round_to_nibbles
from export.sparse_int8 import input_scale
from streaming.bundle import read_bundle
from streaming.features import SILENCE
from streaming.session import open_session
from tests.export.test_quantize import write_linear
from tests.reference.quantize import static_int8, widen_int4

RNG = np.random.default_rng(0)


def run(path, x):
    return onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]


def write_biased(path, weight, bias, axes=2):
    """y = x @ weight + bias of an input with `axes` axes."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["y"]),
    ]
    shapes = [["N", *[None] * (axes - 2), width] for width in weight.shape]
    sides = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in zip("xy", shapes, strict=True)
    ]
    constants = [numpy_helper.from_array(a, n) for a, n in ((weight, "w"), (bias, "b"))]
    graph = helper.make_graph(nodes, "g", *sides, constants)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("reach", [1.0, 0.4])  # a range too small clips
def test_static_is_its_slow_twin(axes, reach, tmp_path):
    weight = RNG.standard_normal((20, 12)).astype(np.float32)
    weight[:, 3] = 0
    weight[:, 5] *= 1e-9  # its bias alone counts, and must fit an int32
    bias = RNG.standard_normal(12).astype(np.float32)
    x = RNG.standard_normal((9, 20)).astype(np.float32)
    low, high = reach * float(x.min()), reach * float(x.max())
    path = write_biased(tmp_path / "g.onnx", weight, bias, axes)
    quantize_graph(path, tmp_path / "q.onnx", "static", ranges={"w": (low, high)})
    found = run(tmp_path / "q.onnx", x.reshape(*[1] * (axes - 2), *x.shape)).reshape(9, 12)
    wanted = static_int8(x, weight.T, low, high) + bias
    steps = (high - low) / 255 * np.abs(weight).max(0) / 127  # of a bias in a Gemm
    assert (np.abs(found - wanted) < 1e-5 + (axes == 2) * steps).all()
    kinds = {node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node}
    assert kinds >= {"QuantizeLinear", "DequantizeLinear", "Gemm" if axes == 2 else "MatMul"}


def test_a_scale_for_each_row_where_rows_differ(tmp_path):
    weight = (RNG.standard_normal((64, 32)) * np.geomspace(1, 17, 32)).astype(np.float32)
    x = RNG.standard_normal((50, 64)).astype(np.float32)
    path = write_linear(tmp_path / "g.onnx", weight)
    ranges = {"w": (float(x.min()), float(x.max()))}
    errors = []
    for per_channel in (False, True):
        quantize_graph(path, tmp_path / "q.onnx", "static", ranges=ranges, per_channel=per_channel)
        error = np.abs(run(tmp_path / "q.onnx", x) - x @ weight) / np.abs(x @ weight).mean(0)
        errors.append(float(error.mean()))
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero"),
    [(-1, 4.1, 0.02, 50), (1, 5.1, 0.02, 0), (-2.55, -1, 0.01, 255), (0, 0, 1, 0)],
)
def test_input_scale_by_hand(low, high, scale, zero):
    found = input_scale(low, high)
    assert float(found[0]) == pytest.approx(scale)
    assert int(found[1]) == zero


@pytest.mark.parametrize(("low", "high"), [(np.nan, 1), (0, np.inf), (2, 1)])
def test_no_range(low, high):
    with pytest.raises(ExportError, match="is no range: calibrate"):
        input_scale(low, high)


def test_nibbles_by_hand():
    weight = np.zeros((2, 32), dtype=np.float32)
    weight[0, :4] = [1, -2, 3, -4]
    levels, scales = round_to_nibbles(weight, 32)
    assert levels[0, 0, :5].tolist() == [2, -4, 6, -8, 0]
    assert scales.tolist() == [[0.5], [1.0]], "1 for a block of zeros"
    assert pack_nibbles(levels)[0, 0, :3].tolist() == [10 + 16 * 4, 14 + 16 * 0, 8 + 16 * 8]


@pytest.mark.parametrize(("inputs", "size"), [(20, 32), (256, 128)])
def test_int4_is_its_slow_twin(inputs, size, tmp_path):
    weight = RNG.standard_normal((inputs, 12)).astype(np.float32)
    path = write_linear(tmp_path / "g.onnx", weight)
    layers = quantize_graph(path, tmp_path / "q.onnx", "int4")
    assert [(layer["form"], layer["bits"]) for layer in layers] == [("int4", 4)]
    model = onnx.load(tmp_path / "q.onnx")
    node = model.graph.node[0]
    sizes = {a.name: a.i for a in node.attribute}
    assert (node.op_type, sizes["block_size"], sizes["accuracy_level"]) == ("MatMulNBits", size, 4)
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    matrix = widen_int4(constants[node.input[1]], constants[node.input[2]], size, inputs)
    assert np.abs(matrix - weight.T).mean() < 0.12
    x = RNG.standard_normal((5, inputs)).astype(np.float32)
    wanted = x @ matrix.T
    # The kernel rounds x to 8 bits, block by block.
    np.testing.assert_allclose(run(tmp_path / "q.onnx", x), wanted, atol=0.03 * wanted.std())


def test_blocks_of_128_only_where_they_cost_little():
    smooth = RNG.uniform(-1, 1, (16, 256)).astype(np.float32)
    assert choose_block(smooth) == 128
    spiky = smooth.copy()
    spiky[:, ::128] *= 8
    assert choose_block(spiky) == 32
    assert choose_block(smooth[:, :192]) == 32, "padded to 256 it takes more bytes"


@pytest.mark.parametrize(
    ("kind", "asked", "form"),
    [
        ("linear", "int4", "int4"),
        ("lstm", "static", "int8"),
        ("lstm", "int4", "int8"),
        ("embedding", "int4", "int8"),
        ("convolution", "static", "half"),
        ("mul", "int4", "fp32"),
        ("lstm", "fp32", "fp32"),
        ("linear", "half", "half"),
    ],
)
def test_what_stands_in_by_hand(kind, asked, form):
    layer = {"name": "a", "kind": kind, "shape": [4, 4]}
    assert find_form(layer, asked) == form
    blocks = {**layer, "kind": "linear", "block_rows": 2}
    assert find_form(blocks, asked) == ("int8" if asked == "int4" else asked)
    assert find_form({**blocks, "block_rows": 4}, asked) == asked, "one group is a MatMul"


def test_both_matrices_of_an_lstm_have_the_wider_form():
    layers = [
        {"name": f"a.weight_{part}_l0", "kind": "lstm", "shape": [8, 2]} for part in ("ih", "hh")
    ]
    plan = plan_forms(layers, "int8", {"a.weight_ih_l0": "half"})
    assert plan == {"a.weight_ih_l0": "half", "a.weight_hh_l0": "half"}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_every_kind(form, bundles, tmp_path):
    for kind, graph in (("conformer", "encoder"), ("lstm", "encoder"), ("lstm", "decoder")):
        source = bundles[kind] / f"{graph}.onnx"
        names = [layer["name"] for layer in list_layers(onnx.load(source))]
        ranges = dict.fromkeys(names, (-8.0, 8.0))
        layers = quantize_graph(source, tmp_path / "q.onnx", form, ranges=ranges)
        assert [layer["name"] for layer in layers] == names
        assert all(x["form"] == find_form(x, form) for x in layers)
        onnxruntime.InferenceSession(str(tmp_path / "q.onnx"))


@pytest.mark.parametrize(
    ("default", "forms", "message"),
    [
        ("int3", {}, "no form 'int3': choose one of int8, static"),
        ("int8", {"w": "none"}, "no form 'none'"),
        ("int8", {"v": "int4"}, "no layer 'v': name one of w"),
        ("static", {}, "static needs the range of what w reads: calibrate"),
    ],
)
def test_refused_in_one_line(default, forms, message, tmp_path):
    path = write_linear(tmp_path / "g.onnx", np.ones((64, 32), dtype=np.float32))
    with pytest.raises(ExportError, match=message) as error:
        quantize_graph(path, tmp_path / "q.onnx", default, forms)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "q.onnx").exists()


def test_methods():
    assert [check_method(name) for name in ("int8", "static", "qat", "int4", "none")]
    with pytest.raises(
        ExportError, match="--quantize is one of int8, static, qat, int4, auto, none"
    ):
        check_method("int3")


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        ([], "static needs to hear speech first"),
        ([np.zeros((0, 80), np.float32)], "static needs to hear speech first"),
        ([np.zeros((40, 79), np.float32)], r"utterance 0 has shape \(40, 79\): give features"),
        ([np.zeros(80, np.float32)], r"utterance 0 has shape \(80,\)"),
        ([np.zeros((40, 80)), np.full((40, 80), np.nan)], "utterance 1 has values .* not finite"),
    ],
)
def test_hostile_calibration(utterances, message, bundles):
    with pytest.raises(ExportError, match=message) as error:
        calibrate(read_bundle(bundles["lstm"]), utterances)
    assert "\n" not in str(error.value)


def test_an_observer_sees_the_extremes_of_all_calls(tmp_path):
    path = write_linear(tmp_path / "g.onnx", np.ones((2, 3), dtype=np.float32))
    observer = Observer(path)
    for row in ([1, -2], [3, 0], [0, 0]):
        observer.see([np.array([row], dtype=np.float32)])
    assert observer.ranges == {"w": (-2.0, 3.0)}


def test_chunks_end_in_silence():
    chunks = cut_chunks(np.zeros((10, 2), dtype=np.float32), 8, 4)
    assert [chunk.shape for chunk in chunks] == [(8, 2), (8, 2)]
    assert chunks[1][:, 0].tolist() == pytest.approx([0, 0, *[SILENCE] * 6])


@pytest.mark.parametrize("kind", ["conformer", "lstm"])
def test_calibration_carries_the_states(kind, bundles, features, monkeypatch):
    """What the encoder is shown are the chunks and states of streaming, one after the other."""
    info = read_bundle(bundles[kind])
    shown = []
    see = Observer.see

    def watch(self, inputs):
        shown.append([np.array(value) for value in inputs])
        see(self, inputs)

    monkeypatch.setattr(Observer, "see", watch)
    ranges = calibrate(info, features[:1])
    session = open_session(info, "fp32")
    state = session.initial_state()
    encoder = [inputs for inputs in shown if len(inputs) == 3]
    chunks = cut_chunks(features[0], info.chunk_frames, info.tail_frames)
    assert len(encoder) == len(chunks) > 5
    for inputs, chunk in zip(encoder, chunks, strict=True):
        for value, wanted in zip(inputs, (chunk[None], *state), strict=True):
            np.testing.assert_array_equal(value, wanted)
        _, state = session.encode(chunk[None], state)
    labels = {tuple(inputs[0][0]) for inputs in shown if len(inputs) == 1}
    assert len(labels) > 3, "label contexts that the search met"
    assert ranges["joiner"]["output"][0] >= -1.0001  # behind a tanh
    assert ranges["joiner"]["output"][1] > 0.5
