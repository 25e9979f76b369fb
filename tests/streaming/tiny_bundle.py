"""A tiny bundle made by hand: random weights, but an encoder that truly carries its state.

Letters: N streams, C chunk frames, F mel bins, T' encoder frames, J joiner width, V tokens.

    h = normalised features, 4 frames stacked, times a matrix           (N, T', S0)
    s_t = DECAY s_{t-1} + h_t, written as (lower triangle) @ h + powers * state0
    encoded = tanh(s) @ matrix;  next_state0 = s of the last frame;  state1 counts frames
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from streaming.bundle import (
    GRAPHS,
    BundleInfo,
    TensorInfo,
    write_bundle_json,
    write_sha256sums,
)

C, F, S0, J = 32, 80, 24, 16
T = C // 4
DECAY = 0.7
PIECES = ["<blk>", "<unk>", "▁", "'", *(f"▁{a}" for a in "abcdefghij"), *"klmnopqrstuvwxyz"]
V = len(PIECES)
DTYPES = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64"}


def _tensor(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def _model(name, nodes, inputs, outputs, constants, metadata):
    initializers = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    onnx.checker.check_model(model, full_check=True)
    return model


def build_encoder(rng):
    steps = np.arange(T)
    lower = np.where(
        steps[:, None] >= steps, DECAY ** np.maximum(0, steps[:, None] - steps), 0.0
    ).astype(np.float32)
    project = rng.normal(0, 0.05, (4 * F, S0)).astype(np.float32)
    project -= project.mean(axis=0)  # digital silence, the same in every bin, projects to nothing
    constants = {
        "mean": np.float32(-7.0).reshape(1),
        "stack": np.array([0, T, 4 * F]),
        "project": project,
        "lower": lower,
        "powers": (DECAY ** (steps + 1)).astype(np.float32).reshape(1, T, 1),
        "zero_axis": np.array([0]),
        "one_axis": np.array([1]),
        "last": np.array([T - 1]),
        "out": rng.normal(0, 0.6, (S0, J)).astype(np.float32),
        "steps": np.float32(T).reshape(1),
    }
    node = helper.make_node
    nodes = [
        node("Sub", ["x", "mean"], ["centred"]),
        node("Reshape", ["centred", "stack"], ["stacked"]),
        node("MatMul", ["stacked", "project"], ["h"]),
        node("MatMul", ["lower", "h"], ["heard"]),
        node("Squeeze", ["state0", "zero_axis"], ["flat"]),
        node("Unsqueeze", ["flat", "one_axis"], ["before"]),
        node("Mul", ["before", "powers"], ["kept"]),
        node("Add", ["heard", "kept"], ["s"]),
        node("Tanh", ["s"], ["bent"]),
        node("MatMul", ["bent", "out"], ["encoder_out"]),
        node("Gather", ["s", "last"], ["end"], axis=1),
        node("Transpose", ["end"], ["next_state0"], perm=[1, 0, 2]),
        node("Add", ["state1", "steps"], ["next_state1"]),
    ]
    inputs = [_tensor("x", ["N", C, F]), _tensor("state0", [1, "N", S0])]
    outputs = [_tensor("encoder_out", ["N", T, J]), _tensor("next_state0", [1, "N", S0])]
    metadata = {"model_type": "lstm", "num_encoder_layers": 1, "T": C, "decode_chunk_len": C}
    metadata |= {"rnn_hidden_size": 1, "d_model": S0}
    return _model(
        "encoder",
        nodes,
        [*inputs, _tensor("state1", [1, "N", 1])],
        [*outputs, _tensor("next_state1", [1, "N", 1])],
        constants,
        metadata,
    )


def build_decoder(rng):
    constants = {
        "table": rng.normal(0, 0.25, (V, J)).astype(np.float32),
        "zero": np.array(0),
        "weights": np.array([0.3, 1.0], dtype=np.float32).reshape(1, 2, 1),
        "two": np.array([2]),
        "one": np.array([1]),
    }
    node = helper.make_node
    nodes = [
        node("Max", ["y", "zero"], ["clamped"]),
        node("Gather", ["table", "clamped"], ["embedded"]),
        node("GreaterOrEqual", ["y", "zero"], ["known"]),
        node("Cast", ["known"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "two"], ["mask3"]),
        node("Mul", ["embedded", "mask3"], ["masked"]),
        node("Mul", ["masked", "weights"], ["weighted"]),
        node("ReduceSum", ["weighted", "one"], ["decoder_out"], keepdims=0),
    ]
    inputs = [_tensor("y", ["N", 2], TensorProto.INT64)]
    outputs = [_tensor("decoder_out", ["N", J])]
    metadata = {"vocab_size": V, "context_size": 2}
    return _model("decoder", nodes, inputs, outputs, constants, metadata)


def build_joiner(rng):
    bias = np.zeros(V, dtype=np.float32)
    bias[0] = 8.0  # some frames are blank then, and all of silence
    constants = {"weight": rng.normal(0, 1.0, (J, V)).astype(np.float32), "bias": bias}
    node = helper.make_node
    nodes = [
        node("Add", ["encoder_out", "decoder_out"], ["both"]),
        node("Tanh", ["both"], ["bent"]),
        node("MatMul", ["bent", "weight"], ["product"]),
        node("Add", ["product", "bias"], ["logit"]),
    ]
    inputs = [_tensor("encoder_out", ["N", J]), _tensor("decoder_out", ["N", J])]
    return _model("joiner", nodes, inputs, [_tensor("logit", ["N", V])], constants, {})


def describe(values):
    return [
        TensorInfo(
            name=value.name,
            shape=[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
            dtype=DTYPES[value.type.tensor_type.elem_type],
        )
        for value in values
    ]


def build_bundle(folder: Path, **settings) -> Path:
    """Writes the whole folder; settings change fields of its BundleInfo."""
    rng = np.random.default_rng(11)  # of a dozen tried, the most talkative
    folder.mkdir()
    models = {"encoder": build_encoder(rng), "decoder": build_decoder(rng)}
    models["joiner"] = build_joiner(rng)
    tensors = {}
    for name, model in models.items():
        onnx.save(model, folder / f"{name}.onnx")
        quantize_dynamic(
            folder / f"{name}.onnx", folder / f"{name}.int8.onnx", weight_type=QuantType.QInt8
        )
        graph = model.graph
        tensors[name] = {"inputs": describe(graph.input), "outputs": describe(graph.output)}
    (folder / "tokens.txt").write_text(
        "".join(f"{piece} {index}\n" for index, piece in enumerate(PIECES)), encoding="utf-8"
    )
    files = {
        "fp32": {name: f"{name}.onnx" for name in GRAPHS},
        "int8": {name: f"{name}.int8.onnx" for name in GRAPHS},
    }
    values = {"name": "tiny", "chunk_frames": C, "vocab_size": V, "state_sizes": [S0, 1]}
    info = BundleInfo(**(values | {"files": files, "tensors": tensors} | settings))
    write_bundle_json(info, folder)
    write_sha256sums(folder)
    return folder


def make_speech(num_samples: int, seed: int = 0, sample_rate: int = 16000) -> np.ndarray:
    """Tones that change pitch and loudness every 0.1 s, in noise; float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    step = sample_rate // 10
    steps = -(-num_samples // step) or 1
    pitch = np.repeat(rng.uniform(100, 3000, steps), step)[:num_samples]
    loudness = np.repeat(rng.uniform(0, 0.3, steps), step)[:num_samples]
    tone = loudness * np.sin(2 * np.pi * np.cumsum(pitch) / sample_rate)
    return (tone + rng.normal(0, 0.005, num_samples)).astype(np.float32)
