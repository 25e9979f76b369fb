"""The states that sherpa-onnx zero-fills for each of its icefall families, from the metadata alone.

Read from its 2.0.1 source. It makes these tensors, hands them to the encoder and dies of an
exception where the graph has others. N is the axis of the streams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import TensorProto

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
N = None
Shape = tuple[int | None, ...]
State = tuple[int, Shape]  # type, shape
Numbers = Mapping[str, int]
Lists = Mapping[str, Sequence[int]]


def lstm(numbers: Numbers, lists: Lists, num_bins: int) -> list[State]:
    layers = numbers["num_encoder_layers"]
    return [(FLOAT, (layers, N, numbers[key])) for key in ("d_model", "rnn_hidden_size")]


def conformer(numbers: Numbers, lists: Lists, num_bins: int) -> list[State]:
    layers, width = numbers["num_encoder_layers"], numbers["encoder_dim"]
    times = numbers["left_context"], numbers["cnn_module_kernel"] - 1
    return [*((FLOAT, (layers, time, N, width)) for time in times), (INT64, (N,))]


def ebranchformer(numbers: Numbers, lists: Lists, num_bins: int) -> list[State]:
    keys = (N, numbers["num_heads"], numbers["left_context_len"], numbers["head_dim"])
    layer: list[State] = [
        (FLOAT, keys),
        (FLOAT, keys),
        (FLOAT, (N, numbers["intermediate_size"] // 2, numbers["csgu_kernel_size"] - 1)),
        (FLOAT, (N, 2 * numbers["hidden_size"], numbers["merge_conv_kernel"] - 1)),
    ]
    return [*(layer * numbers["num_hidden_layers"]), (INT64, (N,))]


def zipformer(numbers: Numbers, lists: Lists, num_bins: int) -> list[State]:
    """Seven groups, each with one tensor for every stack."""
    names = ("num_encoder_layers", "encoder_dims", "left_context_len", "attention_dims")
    groups: list[list[State]] = [
        [
            (INT64, (layers, N)),
            (FLOAT, (layers, N, width)),
            (FLOAT, (layers, left, N, keys)),
            (FLOAT, (layers, left, N, keys // 2)),
            (FLOAT, (layers, left, N, keys // 2)),
            (FLOAT, (layers, N, width, kernel - 1)),
            (FLOAT, (layers, N, width, kernel - 1)),
        ]
        for layers, width, left, keys, kernel in zip(
            *(lists[name] for name in (*names, "cnn_module_kernels")), strict=True
        )
    ]
    return [stack[group] for group in range(7) for stack in groups]


def zipformer2(numbers: Numbers, lists: Lists, num_bins: int) -> list[State]:
    """Six tensors for every layer, then the history of the front end and a counter."""
    names = ("num_encoder_layers", "encoder_dims", "left_context_len", "num_heads")
    dims = (*names, "query_head_dims", "value_head_dims", "cnn_module_kernels")
    states: list[State] = []
    for layers, width, left, heads, query, value, kernel in zip(
        *(lists[name] for name in dims), strict=True
    ):
        values, history = (left, N, value * heads), (N, width, kernel // 2)
        layer = [(left, N, query * heads), (1, N, left, 3 * width // 4)]
        states += [(FLOAT, shape) for shape in (*layer, values, values, history, history)] * layers
    embed = (N, 128, 3, ((num_bins - 1) // 2 - 1) // 2)
    return [*states, (FLOAT, embed), (INT64, (N,))]


STATES: dict[str, Callable[[Numbers, Lists, int], list[State]]] = {
    "lstm": lstm,
    "conformer": conformer,
    "ebranchformer": ebranchformer,
    "zipformer": zipformer,
    "zipformer2": zipformer2,
}
