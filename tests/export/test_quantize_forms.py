"""Each form of export/quantize: close to fp32, smaller, in integers, and heard alike by sherpa."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from itertools import cycle

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from export.bundle import write_bundle
from export.card import write_card
from export.graph import IR_VERSION, OPSET
from export.pack import pack_bundle, unpack_bundle
from export.quantize import calibrate, list_layers, quantize_graph
from export.sherpa import compare_with_sherpa
from export.targets.exported import FILES
from export.validate import validate_bundle
from streaming import open_bundle
from streaming.bundle import read_bundle, write_bundle_json, write_sha256sums
from streaming.session import open_session
from tests.export.conftest import TOKENS, build_model, make_speech
from tests.export.test_sparse import BLOCKS
from tests.reference.sparse import prune_blocks_

KINDS = ("conformer", "lstm", "blocks")
MIX = ("static", "int8", "int4", "fp32")
METHODS = ("int8", "static", "int4", "mix")
# Mean error of the encoding against fp32, in deviations of the encoding, which random weights make
# large; bytes of the encoder against int8. Of so small layers scales and names are half the bytes.
BOUNDS = {"int8": (0.04, 1.0), "static": (0.05, 1.01), "int4": (0.7, 1.0), "mix": (0.5, 1.5)}
# Products of integers, as onnxruntime calls them when it has loaded a graph.
INTEGERS = {
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QGemm",
    "MatMulNBits",
}


@pytest.fixture(scope="module")
def fp32(bundles, tmp_path_factory):
    """Bundles of three encoders."""
    model = build_model("conformer", seed=1)
    prune_blocks_(model, BLOCKS["conformer"], 0.7)
    folder = tmp_path_factory.mktemp("fp32") / "blocks"
    parts = (model.encoder, model.predictor, model.joiner)
    write_bundle(folder, *parts, TOKENS, quantize="none", block_rows=BLOCKS["conformer"])
    return {**bundles, "blocks": folder}


@pytest.fixture(scope="module")
def quantised(fp32, features, tmp_path_factory):
    """(kind, method) -> bundle of that one precision beside fp32, and layers by graph."""
    place = tmp_path_factory.mktemp("quantised")
    made = {}
    for kind in KINDS:
        ranges = calibrate(read_bundle(fp32[kind]), features)
        for method in METHODS:
            folder = place / f"{kind}-{method}"
            made[kind, method] = folder, requantise(fp32[kind], folder, method, ranges)
    return made


def requantise(source, folder, method, ranges):
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.int8.onnx"))
    info = read_bundle(source)
    names = {graph: f"{graph}.{method}.onnx" for graph in FILES}
    layers = {}
    for graph, name in FILES.items():
        default, forms = method, {}
        if method == "mix":
            listed = list_layers(onnx.load(folder / name))
            default = "int4"
            forms = dict(zip((x["name"] for x in listed), cycle(MIX), strict=False))
        paths = folder / name, folder / names[graph]
        layers[graph] = quantize_graph(*paths, default, forms, ranges[graph])
    files = {"fp32": dict(FILES), method: names}
    info = dataclasses.replace(info, folder=folder, files=files, default_precision=method)
    write_bundle_json(info, folder)
    write_card(info, folder)
    write_sha256sums(folder)
    return layers


def encode(folder, precision, features):
    """Encodings of a few chunks in a row, states carried: (frames, J)."""
    session = open_session(read_bundle(folder), precision)
    state, encoded = session.initial_state(), []
    for start in range(0, 16 * 7, 16):
        frames, state = session.encode(features[None, start : start + 16], state)
        encoded.append(frames[0])
    return np.concatenate(encoded)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_close_to_fp32_and_small(kind, method, quantised, features):
    folder, _ = quantised[kind, method]
    wanted, found = (encode(folder, precision, features[1]) for precision in ("fp32", method))
    error = float(np.abs(found - wanted).mean() / wanted.std())
    sizes = [
        (place / f"encoder.{name}.onnx").stat().st_size
        for place, name in ((folder, method), (quantised[kind, "int8"][0], "int8"))
    ]
    print(f"{kind} {method}: error {error:.4f}, {sizes[0]} bytes, int8 {sizes[1]}")
    assert 1e-4 < error < BOUNDS[method][0]
    assert sizes[0] <= BOUNDS[method][1] * sizes[1]


def load_optimised(path, folder):
    """The nodes that onnxruntime runs, and the names of its constants."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options)
    graph = onnx.load(folder / "optimised.onnx").graph
    return graph.node, {i.name: i for i in graph.initializer}


@pytest.mark.parametrize("graph", FILES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_integers_run(kind, method, graph, quantised, tmp_path):
    folder, layers = quantised[kind, method]
    nodes, constants = load_optimised(folder / f"{graph}.{method}.onnx", tmp_path)
    counts = Counter(node.op_type for node in nodes)
    linear = [x for x in layers[graph] if x["kind"] == "linear"]
    wanted = sum(x["form"] in ("int8", "static", "int4") for x in linear)
    # Block layers of a few groups are a product for each group.
    assert sum(counts[name] for name in INTEGERS) >= wanted
    assert counts["MatMulNBits"] == sum(x["form"] == "int4" for x in linear)
    lstms = [x["form"] for x in layers[graph] if x["kind"] == "lstm"]
    assert 2 * counts["DynamicQuantizeLSTM"] == lstms.count("int8")
    widened = {n.output[0] for n in nodes if n.op_type == "DequantizeLinear"}
    floats = [n for n in nodes if n.op_type in ("MatMul", "Gemm", "FusedMatMul")]
    assert not any(widened & {*node.input} for node in floats), "a QDQ layer computes in fp32"
    held = [n for n in floats if n.input[1] in constants]
    windows = [x for x in layers[graph] if x["kind"] == "convolution" and "block_rows" in x]
    assert len(held) == len(windows) + sum(x["form"] == "fp32" for x in linear)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_layers_say_the_form_that_the_file_holds(kind, method, quantised):
    folder, layers = quantised[kind, method]
    rounded = {"convolution": "half", "mul": "fp32", "embedding": "int8", "lstm": "int8"}
    for graph, found in layers.items():
        model = onnx.load(folder / f"{graph}.{method}.onnx")
        assert model.ir_version == IR_VERSION == 8
        assert {o.domain: o.version for o in model.opset_import}[""] == OPSET == 17
        types = Counter(i.data_type for i in model.graph.initializer if len(i.dims) > 1)
        forms = Counter(layer["form"] for layer in found)
        assert types[TensorProto.FLOAT16] == forms["half"]
        assert bool(types[TensorProto.INT8]) == bool(
            sum(x["form"] in ("int8", "static") and x["kind"] != "embedding" for x in found)
        )
        for layer in found:
            several = layer.get("block_rows", layer["shape"][0]) < layer["shape"][0]
            wanted = "int8" if several and method == "int4" else method
            if method != "mix":
                assert layer["form"] == rounded.get(layer["kind"], wanted), layer["name"]
            bits = {"int8": 8, "static": 8, "int4": 4, "half": 16, "fp32": 32}
            assert layer["bits"] == bits[layer["form"]]


@pytest.mark.parametrize("method", ["static", "int4", "mix"])
@pytest.mark.parametrize("kind", KINDS)
def test_sherpa_hears_the_same(kind, method, quantised):
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is in the extra [dev]")
    folder, _ = quantised[kind, method]
    row = compare_with_sherpa(folder, [make_speech(8000 + 2777 * n, n) for n in range(6)], method)
    assert row["passed"], row
    assert row["tokens"] > 10


@pytest.mark.parametrize("method", ["static", "int4", "mix"])
def test_packs_and_loads(method, quantised, tmp_path):
    folder, _ = quantised["blocks", method]
    assert validate_bundle(folder) == []
    pack_bundle(folder, tmp_path / "b.pack")
    info = unpack_bundle(tmp_path / "b.pack", tmp_path / "b")
    assert set(info.files) == {method}
    for name in info.files[method].values():
        assert (tmp_path / "b" / name).read_bytes() == (folder / name).read_bytes()
    assert "from_transducer" in (tmp_path / "b" / "README.md").read_text()
    texts = []
    for place in (folder, tmp_path / "b"):
        stream = open_bundle(place).create_stream()
        stream.accept(make_speech(40000, 2))
        texts.append(stream.finish())
    assert texts[0] == texts[1] != ""


def test_write_bundle_mixes_forms(models, features, tmp_path):
    model = models["lstm"]
    forms = {"encoder.layers.0.weight_hh_l0": "fp32", "joiner.output": "int4"}
    parts = (model.encoder, model.predictor, model.joiner)
    settings = {"quantize": "static", "forms": forms, "calibration": features}
    info = write_bundle(tmp_path / "bundle", *parts, TOKENS, **settings)
    assert (info.default_precision, set(info.files)) == ("static", {"fp32", "static"})
    held = {layer["name"]: layer["form"] for layer in info.layers}
    assert held["encoder.layers.0.weight_ih_l0"] == "fp32", "one node reads both"
    assert held["encoder.layers.1.weight_ih_l0"] == "int8"
    assert (held["joiner.output"], held["predictor.project"]) == ("int4", "static")
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "encoder.static.onnx" in card
    assert "| joiner | 1 | 1280 | 4 | int4 |" in card
