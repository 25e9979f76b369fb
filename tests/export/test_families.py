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
# Written out by hand for the metadata of write_icefall(), where every other number is 3 (a kernel,
# 3 layers, ..): shapes as the table of sherpa-onnx's source has them, N the streams.
N = "N"
STATES = {
    "conformer": [(FLOAT, [3, 3, N, 3]), (FLOAT, [3, 2, N, 3]), (INT64, [N])],
    "ebranchformer": [
        *[
            (FLOAT, [N, 3, 3, 3]),
            (FLOAT, [N, 3, 3, 3]),
            (FLOAT, [N, 1, 2]),
            (FLOAT, [N, 6, 2]),
        ]
        * 3,
        (INT64, [N]),
    ],
    "zipformer": [
        *((INT64, [2, N]), (INT64, [1, N])),
        *((FLOAT, [2, N, 64]), (FLOAT, [1, N, 96])),
        *((FLOAT, [2, 64, N, 32]), (FLOAT, [1, 32, N, 32])),
        *((FLOAT, [2, 64, N, 16]), (FLOAT, [1, 32, N, 16])),
        *((FLOAT, [2, 64, N, 16]), (FLOAT, [1, 32, N, 16])),
        *((FLOAT, [2, N, 64, 14]), (FLOAT, [1, N, 96, 14])),
        *((FLOAT, [2, N, 64, 14]), (FLOAT, [1, N, 96, 14])),
    ],
    "zipformer2": [
        *[
            (FLOAT, [64, N, 32]),
            (FLOAT, [1, N, 64, 48]),
            (FLOAT, [64, N, 16]),
            (FLOAT, [64, N, 16]),
            (FLOAT, [N, 64, 7]),
            (FLOAT, [N, 64, 7]),
        ]
        * 2,
        (FLOAT, [32, N, 32]),
        (FLOAT, [1, N, 32, 72]),
        (FLOAT, [32, N, 16]),
        (FLOAT, [32, N, 16]),
        (FLOAT, [N, 96, 7]),
        (FLOAT, [N, 96, 7]),
        (FLOAT, [N, 128, 3, 19]),
        (INT64, [N]),
    ],
}
# The counter of a conformer does not come out again.
BACK = {kind: states[:-1] if kind == "conformer" else states for kind, states in STATES.items()}


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


def write_icefall(folder, kind, name="encoder-epoch-9", drop=0, change=None):
    """drop: how many state tensors the encoder forgets; change: (place, state) to have instead."""
    family = ICEFALL[kind]
    states = dict(enumerate(STATES[kind][drop:])) | dict([change] if change else [])
    metadata = dict.fromkeys(family.keys, "3") | {"T": "45", "decode_chunk_len": "32"}
    metadata |= {key: LISTS[key] for key in family.lists} | {"model_type": kind}
    inputs = {"x": (FLOAT, ["N", 45, 80])}
    inputs |= {f"s{i}": state for i, state in states.items()}
    outputs = {"out": (FLOAT, ["N", 8, 512])}
    outputs |= {f"t{i}": state for i, state in enumerate(BACK[kind])}
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


@pytest.mark.parametrize("kind", STATES)
def test_icefall_families(kind, tmp_path):
    write_icefall(tmp_path, kind)
    assert validate_bundle(tmp_path) == []
    write_icefall(tmp_path, kind, drop=1)
    problems = validate_bundle(tmp_path)
    assert len(problems) == 1
    assert f"inputs, this family needs {1 + len(STATES[kind])}" in problems[0]


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_state_of_another_shape_or_type(kind, place, tmp_path):
    place %= len(STATES[kind])
    dtype, shape = STATES[kind][place]
    wider = [size if size == N else size + 1 for size in shape] if len(shape) > 1 else [N, 2]
    write_icefall(tmp_path, kind, change=(place, (dtype, wider)))
    assert [p for p in validate_bundle(tmp_path) if f"encoder-epoch-9.onnx: s{place} is" in p]
    other = INT64 if dtype == FLOAT else FLOAT
    write_icefall(tmp_path, kind, change=(place, (other, shape)))
    name = "float32" if dtype == FLOAT else "int64"
    assert f"s{place} must be {name}: export it so" in validate_bundle(tmp_path)[0]
    write_icefall(tmp_path, kind, change=(place, (dtype, [5 if s == N else s for s in shape])))
    assert f"s{place} is fixed to 5 streams" in validate_bundle(tmp_path)[0]


def test_lists_of_different_lengths(tmp_path):
    write_icefall(tmp_path, "zipformer2")
    path = tmp_path / "encoder-epoch-9.onnx"
    model = onnx.load(path)
    next(entry for entry in model.metadata_props if entry.key == "num_heads").value = "2,2,2"
    onnx.save(model, path)
    problems = validate_bundle(tmp_path)
    assert len(problems) == 1
    assert "lists differ in length" in problems[0]


def test_int8_encoder_with_fp32_decoder(tmp_path):
    write_icefall(tmp_path, "conformer", name="encoder-epoch-9.int8")
    assert validate_bundle(tmp_path) == []


@pytest.mark.parametrize("kind", STATES)
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


NEMO = {
    "audio_signal": (FLOAT, ["N", 80, "T"]),
    "length": (INT64, ["N"]),
    "channel": (FLOAT, ["N", 4, 4, 4]),
    "time": (FLOAT, ["N", 4, 4, 4]),
    "channel_len": (INT64, ["N"]),
}
PREDICTOR = {
    "targets": (INT32, [1, 1]),
    "n": (INT32, [1]),
    "h": (FLOAT, [4, 1, 4]),
    "c": (FLOAT, [4, 1, 4]),
}


def write_nemo(folder, tensors=None, logit=(1, 1, 3), **changes):
    """tensors: inputs by name to have instead; changes: metadata, "" for none of it."""
    metadata = dict.fromkeys(NEMO_KEYS, "4") | {"vocab_size": "2", "normalize_type": "NA"}
    encoder = {name: (tensors or {}).get(name, value) for name, value in NEMO.items()}
    decoder = {name: (tensors or {}).get(name, value) for name, value in PREDICTOR.items()}
    caches = {f"next_{name}": encoder[name] for name in [*NEMO][2:]}
    lengths = {"encoded_lengths": (INT64, ["N"])}
    write_graph(
        folder / "encoder.onnx",
        encoder,
        {"outputs": (FLOAT, ["N", 512, "S"])} | lengths | caches,
        {key: value for key, value in (metadata | changes).items() if value},
    )
    states = {"h2": decoder["h"], "c2": decoder["c"]}
    out = {"out": (FLOAT, [1, 4, 1]), "len": (INT32, [1])}
    write_graph(folder / "decoder.onnx", decoder, out | states, {})
    vectors = {"a": (FLOAT, [1, 512, 1]), "b": (FLOAT, [1, 4, 1])}
    write_graph(folder / "joiner.onnx", vectors, {"logit": (FLOAT, list(logit))}, {})
    (folder / "tokens.txt").write_text("a 0\nb 1\n<blk> 2\n")


NEMO_BREAKS = {
    "free bins": ({"tensors": {"audio_signal": (FLOAT, ["N", "C", "T"])}}, "with fixed bins"),
    "other window": ({"tensors": {"audio_signal": (FLOAT, ["N", 80, 9])}}, "audio_signal is"),
    "one stream": ({"tensors": {"audio_signal": (FLOAT, [1, 80, 4])}}, "fixed to 1 streams"),
    "int32 length": ({"tensors": {"length": (INT32, ["N"])}}, "length must be int64"),
    "cache": ({"tensors": {"time": (FLOAT, ["N", 4, 4, 5])}}, "time is"),
    "counter": ({"tensors": {"channel_len": (FLOAT, ["N"])}}, "channel_len must be int64"),
    "int64 labels": ({"tensors": {"targets": (INT64, [1, 1])}}, "targets must be int32"),
    "wide h": ({"tensors": {"h": (FLOAT, [4, 1, 5])}}, "h is"),
    "logits": ({"logit": (1, 1, 2)}, "2 values, vocab_size 2 and blank ask for 3"),
    "no window": ({"window_size": ""}, "metadata has no window_size"),
    "no text": ({"normalize_type": ""}, "normalize_type: set it to NA"),
    "no subsampling": ({"subsampling_factor": "0"}, "must be above 0"),
}


@pytest.mark.parametrize("name", NEMO_BREAKS)
def test_what_kills_the_nemo_family(name, tmp_path):
    changes, message = NEMO_BREAKS[name]
    write_nemo(tmp_path, **changes)
    assert [p for p in validate_bundle(tmp_path) if message in p], validate_bundle(tmp_path)


def test_nemo_family(tmp_path):
    write_nemo(tmp_path)
    assert validate_bundle(tmp_path) == []
