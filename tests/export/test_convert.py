"""`compress convert`: target x precision x form decode alike in streaming/ and in sherpa-onnx."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.tools.reduced_build_config_parser import parse_config

import streaming
from compress.cli import run_app
from export.convert import FORMS, convert_bundle, write_external
from export.errors import ExportError
from export.ort_file import CONFIG_FILE, list_operators, read_ort
from export.pack import pack_bundle, unpack_bundle
from export.parity import compare
from export.sherpa import compare_with_sherpa
from export.traces import lay_course, trace_chunks
from export.validate import validate_bundle
from streaming.bundle import read_bundle
from streaming.errors import BundleError
from streaming.external import find_external
from streaming.features import compute_features
from streaming.session import open_session
from tests.export.conftest import make_speech
from tests.export.form_bundles import PRECISIONS, SOURCES

BLOCKED = "com.microsoft.nchwc"  # operators for vectors as wide as this processor's


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("target", SOURCES)
def test_the_same_chunk_by_chunk(target, precision, form, forms):
    infos = [read_bundle(forms[target, name]) for name in ("onnx", form)]
    heard = [compute_features(make_speech(48000, seed), infos[0].features) for seed in range(2)]
    course = lay_course(heard, 1, 20, infos[0].chunk_frames, seed=0)
    traces = [trace_chunks(form, open_session(info, precision), course) for info in infos]
    # The same numbers but for convolutions, which some processors add up in another order when
    # they run .onnx; in a quantised graph such a last bit may become a step of 1/256.
    exact = precision == "fp32" or form == "external"
    row = compare(*traces, 1e-4 if exact else None, 0.95)
    assert row["passed"], row
    assert row["token_agreement"] == 1.0 or not exact
    assert len(traces[0].tokens[0]) > 10


@pytest.mark.parametrize(("target", "form"), [*product(SOURCES, FORMS)])
def test_the_same_tokens_in_sherpa_onnx(target, form, forms, speech):
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is in the extra [dev]")
    row = compare_with_sherpa(forms[target, form], speech, "int8")
    assert row["passed"], row
    assert row["tokens"] > 10


@pytest.mark.parametrize(("target", "form"), [*product(SOURCES, FORMS)])
def test_fit_and_packable(target, form, forms, tmp_path):
    folder = forms[target, form]
    assert validate_bundle(folder) == []
    pack_bundle(folder, tmp_path / "b.pack")
    info = unpack_bundle(tmp_path / "b.pack", tmp_path / "b")
    graphs = set(info.list_files("int8"))
    assert ("encoder.int8.onnx.data" in graphs) == (form == "external")
    others = {"tokens.txt", "bundle.json", "README.md", "SHA256SUMS"}
    others |= {CONFIG_FILE} if form == "ort" else set()
    assert {path.name for path in (tmp_path / "b").iterdir()} == graphs | others
    for name in graphs:
        assert (tmp_path / "b" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("target", SOURCES)
def test_the_config_lists_what_the_ort_files_use(target, forms):
    """Read by the parser of onnxruntime's own build script, types included."""
    folder = forms[target, "ort"]
    listed, types = parse_config(str(folder / CONFIG_FILE), enable_type_reduction=True)
    used = set().union(*(list_operators(path) for path in folder.glob("*.ort")))
    assert {(d, n, op) for d, sets in listed.items() for n, ops in sets.items() for op in ops} == (
        used
    )
    entries = types.get_cpp_entries()
    assert any("Add, Input, 0, float" in entry for entry in entries)
    assert not any("double" in entry for entry in entries)
    assert str(folder.parent) not in (folder / CONFIG_FILE).read_text()


def convert_for(path: Path, target: Path, platform: str) -> onnx.ModelProto:
    """As onnxruntime's converter does for a platform, without the layout of this processor."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    options.add_session_config_entry("session.save_model_format", "ORT")
    signed = "1" if platform == "arm" else "0"
    options.add_session_config_entry("session.qdqisint8allowed", signed)
    onnxruntime.InferenceSession(str(path), options, disabled_optimizers=["NchwcTransformer"])
    return read_ort(target)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("target", SOURCES)
def test_one_file_for_arm_and_amd64(target, precision, forms, tmp_path):
    """Nodes and weights are those that either platform's conversion gives."""
    made, source = (read_bundle(forms[target, form]) for form in ("ort", "onnx"))
    for graph in made.tensors:
        ours = read_ort(made.graph_path(graph, precision))
        assert not any(node.domain == BLOCKED for node in ours.graph.node)
        for platform in ("arm", "amd64"):
            path = source.graph_path(graph, precision)
            theirs = convert_for(path, tmp_path / "graph.ort", platform)
            assert contents(ours) == contents(theirs)


def contents(model):
    nodes = [(node.domain, node.op_type) for node in model.graph.node]
    weights = Counter((w.data_type, *w.dims, w.raw_data) for w in model.graph.initializer)
    return nodes, weights


def test_read_ort_sees_what_onnx_says(forms):
    for precision, graph in product(PRECISIONS, ("encoder", "decoder", "joiner")):
        infos = [read_bundle(forms["sherpa_nemo", form]) for form in ("onnx", "ort")]
        ours = onnx.load(infos[0].graph_path(graph, precision))
        found = read_ort(infos[1].graph_path(graph, precision))
        assert found.ir_version == ours.ir_version == 8
        entries = [{e.key: e.value for e in m.metadata_props} for m in (ours, found)]
        assert entries[0] == entries[1]
        for side in ("input", "output"):
            values = [getattr(model.graph, side) for model in (ours, found)]
            assert [(v.name, v.type) for v in values[0]] == [(v.name, v.type) for v in values[1]]


def test_external_weights_by_hand(tmp_path):
    values = np.arange(300, dtype=np.float32)
    weights = [
        onnx.numpy_helper.from_array(values[:n], name)
        for name, n in zip("abc", (300, 3, 257), strict=True)
    ]
    nodes = [onnx.helper.make_node("Concat", ["a", "b", "c"], ["y"], axis=0)]
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [560])
    graph = onnx.helper.make_graph(nodes, "g", [], [y], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    (tmp_path / "in").mkdir()
    onnx.save(model, tmp_path / "in" / "g.onnx")
    path = write_external(tmp_path / "in" / "g.onnx", tmp_path)
    # 1200 bytes, 16 of padding to the next 64, 1028 bytes; three values stay inside.
    data = (tmp_path / "g.onnx.data").read_bytes()
    assert data == values.tobytes() + bytes(16) + values[:257].tobytes()
    assert find_external(path) == "g.onnx.data"
    assert find_external(tmp_path / "in" / "g.onnx") is None
    found = onnxruntime.InferenceSession(str(path)).run(None, {})[0]
    np.testing.assert_array_equal(found, np.concatenate([values, values[:3], values[:257]]))


def test_one_precision_alone(forms, tmp_path):
    info = convert_bundle(forms["sherpa_lstm", "onnx"], "ort", tmp_path / "b", "int4")
    assert (set(info.files), info.default_precision) == ({"int4"}, "int4")
    stream = streaming.open_bundle(tmp_path / "b").create_stream()
    stream.accept(make_speech(40000, 2))
    assert stream.finish()
    operators = {name for _, _, name in list_operators(info.graph_path("encoder", "int4"))}
    assert "MatMulNBits" in operators
    assert "DynamicQuantizeMatMul" not in (tmp_path / "b" / CONFIG_FILE).read_text()


def test_wrong_calls_name_the_fix(forms, tmp_path, capsys):
    source = forms["sherpa_lstm", "onnx"]
    with pytest.raises(ExportError, match="no form 'tflite': convert to ort or external"):
        convert_bundle(source, "tflite", tmp_path / "b")
    with pytest.raises(ExportError, match="exists already: choose another"):
        convert_bundle(source, "ort", tmp_path)
    with pytest.raises(BundleError, match="no precision 'int2': choose one of"):
        convert_bundle(source, "ort", tmp_path / "b", "int2")
    for form in FORMS:
        with pytest.raises(ExportError, match=r"encoder\.(onnx|ort): converted already: give"):
            convert_bundle(forms["sherpa_lstm", form], "ort", tmp_path / "b")
    assert run_app(["convert", str(source), "--to", "zip", "--out", str(tmp_path / "b")]) == 2
    assert "no form 'zip'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_what_it_wrote(forms, tmp_path, capsys):
    out = tmp_path / "b"
    arguments = ["convert", str(forms["sherpa_nemo", "onnx"]), "--to", "external"]
    assert run_app([*arguments, "--precision", "int8", "--out", str(out)]) == 0
    told = capsys.readouterr().err
    size = sum(p.stat().st_size for p in out.iterdir() if ".onnx" in p.name)
    assert f"int8: {size / 1e6:.2f} MB" in told
    assert f"next: compress verify {out}" in told
    assert set(json.loads((out / "bundle.json").read_text())["files"]) == {"int8"}
    assert run_app(["validate", str(out)]) == 0


def test_other_peoples_ort_folders_are_read(forms, tmp_path):
    info = read_bundle(forms["sherpa_lstm", "ort"])
    for name in (*info.files["int8"].values(), "tokens.txt"):
        (tmp_path / name).write_bytes((info.folder / name).read_bytes())
    assert validate_bundle(tmp_path) == []
    (tmp_path / "encoder.int8.ort").write_bytes((tmp_path / "decoder.int8.ort").read_bytes())
    assert "model_type is None" in validate_bundle(tmp_path)[0]
