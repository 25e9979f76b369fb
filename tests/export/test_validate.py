"""Each way to kill sherpa-onnx is found before it loads, with the fix."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.validate import check_tokens_file, validate_bundle
from streaming.bundle import write_sha256sums
from tests.export.conftest import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_our_bundles_are_fit(kind, bundles):
    assert validate_bundle(bundles[kind]) == []


def foreign(folder):
    """The bundle as another project would hand it out: no bundle.json, no hashes."""
    (folder / "bundle.json").unlink()
    (folder / "SHA256SUMS").unlink()


def set_metadata(model, **changes):
    values = {entry.key: entry.value for entry in model.metadata_props}
    values = {k: v for k, v in (values | changes).items() if v is not None}
    del model.metadata_props[:]
    helper.set_model_props(model, values)


def fix_streams(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def drop_state(model):
    del model.graph.output[2]


def stretch_decoder(model):
    dims = model.graph.output[0].type.tensor_type.shape.dim
    dims.add().dim_value = 1


def poison(model):
    weight = next(i for i in model.graph.initializer if len(i.dims) > 1)
    array = numpy_helper.to_array(weight).copy()
    array.flat[0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))


def set_opset(model):
    model.opset_import[0].version = 23


def set_ir(model):
    model.ir_version = 14


def add_domain(model):
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    model.graph.node[-1].domain = "my.ops"


def half_state(model):
    model.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


def int32_labels(model):
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32


BREAKS = {
    "no metadata": ("encoder", lambda m: m.ClearField("metadata_props"), "model_type is None"),
    "no T": ("encoder", lambda m: set_metadata(m, T=None), "metadata has no T: export again"),
    "T of text": ("encoder", lambda m: set_metadata(m, T="long"), "T is 'long', not an integer"),
    "other T": ("encoder", lambda m: set_metadata(m, T="99"), "x is .* ask for"),
    "shift": ("encoder", lambda m: set_metadata(m, decode_chunk_len="99"), "must be 1..T"),
    "unknown type": ("encoder", lambda m: set_metadata(m, model_type="tcn"), "set one of lstm"),
    "state width": ("encoder", lambda m: set_metadata(m, d_model="7"), "state0 is .* ask for"),
    "half state": ("encoder", half_state, "state0 must be float32"),
    "fixed batch": (
        "encoder",
        fix_streams,
        "x is fixed to 1 streams: sherpa-onnx dies .* export with a free",
    ),
    "lost state": ("encoder", drop_state, "has 2 outputs, this family needs 3"),
    "ir": ("encoder", set_ir, "IR 14 is refused .* write IR 8"),
    "opset": ("joiner", set_opset, "opset 23 is unknown .* write opset 17"),
    "domain": ("joiner", add_domain, "operators of my.ops are not in onnxruntime"),
    "nan": ("joiner", poison, "holds NaN or infinity"),
    "3-D decoder": ("decoder", stretch_decoder, "must be \\(N, J\\).* drop the time axis"),
    "int32 labels": ("decoder", int32_labels, "y must be int64"),
    "context": ("decoder", lambda m: set_metadata(m, context_size="3"), "y is .* ask for"),
    "vocabulary": ("decoder", lambda m: set_metadata(m, vocab_size="41"), "no symbol for id 40"),
    "no context": ("decoder", lambda m: set_metadata(m, context_size=None), "no context_size"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_kills_is_found(name, copied_bundle):
    graph, damage, message = BREAKS[name]
    foreign(copied_bundle)
    path = copied_bundle / f"{graph}.onnx"
    model = onnx.load(path)
    damage(model)
    onnx.save(model, path)
    problems = validate_bundle(copied_bundle)
    assert problems
    assert any(str(path.parent) in p for p in problems)
    with_message = [p for p in problems if re.search(message, p)]
    assert with_message, problems
    assert all("\n" not in p for p in problems)


def test_with_hashes_a_changed_file_is_found_first(copied_bundle):
    (copied_bundle / "joiner.onnx").write_bytes(b"other")
    assert [p for p in validate_bundle(copied_bundle) if "does not match SHA256SUMS" in p]


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_cut_short(keep, copied_bundle):
    path = copied_bundle / "encoder.int8.onnx"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    write_sha256sums(copied_bundle)
    problems = validate_bundle(copied_bundle)
    assert len(problems) == 1
    assert "encoder.int8.onnx: not an ONNX file, or cut short" in problems[0]


def test_missing_parts(copied_bundle, tmp_path):
    assert "no such folder" in validate_bundle(tmp_path / "nowhere")[0]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no encoder*.onnx" in validate_bundle(empty)[0]
    foreign(copied_bundle)
    (copied_bundle / "tokens.txt").unlink()
    assert "tokens.txt: missing" in validate_bundle(copied_bundle)[0]
    (copied_bundle / "decoder.onnx").unlink()
    assert any("decoder.onnx: missing" in p for p in validate_bundle(copied_bundle))


def test_swapped_networks_are_found(copied_bundle):
    foreign(copied_bundle)
    encoder, joiner = copied_bundle / "encoder.onnx", copied_bundle / "joiner.onnx"
    data = encoder.read_bytes()
    encoder.write_bytes(joiner.read_bytes())
    joiner.write_bytes(data)
    assert any("model_type" in p for p in validate_bundle(copied_bundle))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<blk> 0\na b 1\nc 2\n", ":2: not 'symbol id'"),
        ("<blk> 0\na one\nc 2\n", ":2: not 'symbol id'"),
        ("<blk> 0\na 1\nc 1\n", ":3: id 1 is there twice"),
        ("<blk> 0\na 1\n", "no symbol for id 2 of 3"),
        ("a 0\n<blk> 1\nc 2\n", "put <blk> first"),
        ("<blk> 0\n1\nc 2\n", None),
    ],
)
def test_tokens_file(text, message, tmp_path):
    path = tmp_path / "tokens.txt"
    path.write_text(text)
    problems = check_tokens_file(path, 3)
    if message is None:
        assert problems == []
    else:
        assert len(problems) == 1
        assert message in problems[0]


def test_tokens_of_the_nemo_family_have_blank_last(tmp_path):
    path = tmp_path / "tokens.txt"
    path.write_text("a 0\nb 1\n<blk> 2\n")
    assert check_tokens_file(path, 2, blank_last=True) == []
    assert "<blk> last" in check_tokens_file(path, 1, blank_last=True)[0]
