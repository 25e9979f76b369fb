"""Other people's bundles: the interface alone decides, so graphs without a weight will do."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from export.families import CHUNK, ICEFALL, NEMO_KEYS
from export.validate import validate_bundle

FLOAT, INT64, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32
LISTS = {
    "encoder_dims": "64,96",
    "num_encoder_layers": "2,1",
    "attention_dims": "32,32",
    "cnn_module_kernels": "15,15",
    "left_context_len": "64,32",
    "query_head_dims": "16,16",
    "value_head_dims": "8,8",
    "num_heads": "2,2",
}
# model_type: (state tensors in, inputs after them, state tensors out)
COUNTS = {
    "conformer": (2, 1, 2),
    "ebranchformer": (12, 1, 13),
    "zipformer": (14, 0, 14),
    "zipformer2": (20, 0, 20),
}


def write_graph(path, inputs, outputs, metadata):
    """A file with this interface: name -> (type, shape)."""
    sides = [
        [helper.make_tensor_value_info(name, *kind) for name, kind in side.items()]
        for side in (inputs, outputs)
    ]
    graph = helper.make_graph([], "g", *sides)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)


def write_icefall(folder, kind, name="encoder-epoch-9", drop=0):
    """`drop`: how many of the encoder's state tensors to forget."""
    family = ICEFALL[kind]
    states, more, back = COUNTS[kind]
    metadata = dict.fromkeys(family.keys, "3") | {"T": "45", "decode_chunk_len": "32"}
    metadata |= {key: LISTS[key] for key in family.lists} | {"model_type": kind}
    inputs = {"x": (FLOAT, ["N", 45, 80])}
    inputs |= {f"s{i}": (FLOAT, ["N", 4]) for i in range(states - drop)}
    inputs |= {f"m{i}": (INT64, ["N"]) for i in range(more)}
    outputs = {"out": (FLOAT, ["N", 8, 512])}
    outputs |= {f"t{i}": (FLOAT, ["N", 4]) for i in range(back)}
    write_graph(folder / f"{name}.onnx", inputs, outputs, metadata)
    write_graph(
        folder / "decoder-epoch-9.onnx",
        {"y": (INT64, ["N", 2])},
        {"decoder_out": (FLOAT, ["N", 512])},
        {"vocab_size": "3", "context_size": "2"},
    )
    write_graph(
        folder / "joiner-epoch-9.onnx",
        {"a": (FLOAT, ["N", 512]), "b": (FLOAT, ["N", 512])},
        {"logit": (FLOAT, ["N", 3])},
        {},
    )
    (folder / "tokens.txt").write_text("<blk> 0\na 1\nb 2\n#0 3\n")


@pytest.mark.parametrize("kind", COUNTS)
def test_icefall_families(kind, tmp_path):
    write_icefall(tmp_path, kind)
    assert validate_bundle(tmp_path) == []
    write_icefall(tmp_path, kind, drop=1)
    problems = validate_bundle(tmp_path)
    assert len(problems) == 1
    assert f"inputs, this family needs {1 + sum(COUNTS[kind][:2])}" in problems[0]


def test_int8_encoder_with_fp32_decoder(tmp_path):
    write_icefall(tmp_path, "conformer", name="encoder-epoch-9.int8")
    assert validate_bundle(tmp_path) == []


@pytest.mark.parametrize("kind", COUNTS)
def test_every_key_is_missed(kind, tmp_path):
    write_icefall(tmp_path, kind)
    path = tmp_path / "encoder-epoch-9.onnx"
    model = onnx.load(path)
    del model.metadata_props[:]
    helper.set_model_props(model, {"model_type": kind})
    onnx.save(model, path)
    text = "\n".join(validate_bundle(tmp_path))
    for key in (*CHUNK, *ICEFALL[kind].keys):
        assert f"metadata has no {key}:" in text


def write_nemo(folder, num_bins=80, **changes):
    metadata = dict.fromkeys(NEMO_KEYS, "4") | {"vocab_size": "2", "normalize_type": "NA"}
    write_graph(
        folder / "encoder.onnx",
        {
            "audio_signal": (FLOAT, ["N", num_bins, "T"]),
            "length": (INT64, ["N"]),
            "channel": (FLOAT, ["N", 4, 4, 4]),
            "time": (FLOAT, ["N", 4, 4, 4]),
            "channel_len": (INT64, ["N"]),
        },
        {"outputs": (FLOAT, ["N", 512, "S"])},
        {key: value for key, value in (metadata | changes).items() if value},
    )
    state = (FLOAT, [4, 1, 4])
    write_graph(
        folder / "decoder.onnx",
        {"targets": (INT32, [1, 1]), "n": (INT32, [1]), "h": state, "c": state},
        {"out": (FLOAT, [1, 4, 1]), "len": (INT32, [1]), "h2": state, "c2": state},
        {},
    )
    write_graph(folder / "joiner.onnx", {"a": state, "b": state}, {"logit": state}, {})
    (folder / "tokens.txt").write_text("a 0\nb 1\n<blk> 2\n")


def test_nemo_family(tmp_path):
    write_nemo(tmp_path)
    assert validate_bundle(tmp_path) == []
    write_nemo(tmp_path, normalize_type="")
    assert "normalize_type: set it to NA" in validate_bundle(tmp_path)[0]
    write_nemo(tmp_path, window_size="")
    assert "metadata has no window_size" in validate_bundle(tmp_path)[0]
    write_nemo(tmp_path, num_bins="C")
    assert "fixed bins" in validate_bundle(tmp_path)[0]
