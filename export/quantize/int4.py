"""int4: weights alone, a scale for each 32 or 128 of an output row; MatMulNBits of onnxruntime.

Its accuracy_level 4 rounds activations to int8, block by block, and multiplies integers; the
default, fp32, is 1/20 to 1 times as fast as a dense fp32 layer of 512x2048. A nibble holds q + 8, a
weight is q * scale with q in -8 .. 7: the scale brings the largest value of a block to -8, or a
little beyond where that loses less.

# Letters: K inputs, P outputs, k weights a block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.passes import add_constant, constant, replace_node
from export.quantize.job import Job
from export.quantize.layers import find_products

BLOCKS = (32, 128)
LOWEST, HIGHEST = -8, 7
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)  # of the scale, tried for the least squared error
# Blocks of 128 may have this much of the error of 32: the encoding of the built-in teacher has 2 %
# more error and 4 % fewer bytes so (0.0594 for 0.0582 of its size, 3.56 for 3.73 MB).
MORE_ERROR = 1.25
ACCURACY_LEVEL = 4
DOMAIN = "com.microsoft"
Floats = npt.NDArray[np.float32]


def write_int4(model: ir.Model, job: Job) -> ir.Model:
    graph = model.graph
    for name, products in find_products(graph).items():
        if name in job.weights:
            _write_products(graph, name, products)
    graph.opset_imports[DOMAIN] = 1
    return model


def _write_products(graph: ir.Graph, name: str, products: list[ir.Node]) -> None:
    weight = np.asarray(constant(graph.initializers[name]), dtype=np.float32).T
    size = choose_block(weight)
    levels, scales = round_to_nibbles(weight, size)
    stored = add_constant(graph, f"{name}_int4", pack_nibbles(levels))
    scale = add_constant(graph, f"{name}_scale", scales.reshape(-1))
    sizes = {"K": weight.shape[1], "N": weight.shape[0], "bits": 4, "block_size": size}
    for product in products:
        attributes = sizes | {"accuracy_level": ACCURACY_LEVEL}
        inputs = [product.inputs[0], stored, scale]
        node = ir.node("MatMulNBits", inputs, attributes, domain=DOMAIN)
        replace_node(graph, product, [node])
    del graph.initializers[name]


def choose_block(weight: Floats) -> int:
    """128 weights a scale where that takes fewer bytes than 32 and is hardly worse."""
    small, large = BLOCKS
    if count_bytes(weight, large) >= count_bytes(weight, small):
        return small  # K is no multiple of 128, and the last block is mostly zeros
    errors = [relative_error(weight, size) for size in BLOCKS]
    return large if errors[1] <= MORE_ERROR * errors[0] else small


def count_bytes(weight: Floats, size: int) -> int:
    """Nibbles and scales of a (P, K) matrix."""
    num_blocks = split_blocks(weight, size).size // size
    return num_blocks * (size // 2 + 4)


def relative_error(weight: Floats, size: int) -> float:
    """|rounded - weight| / |weight| of a (P, K) matrix."""
    levels, scales = round_to_nibbles(weight, size)
    blocks = split_blocks(weight, size)
    error = np.linalg.norm(levels * scales[..., None] - blocks)
    return float(error / max(float(np.linalg.norm(blocks)), 1e-30))


def round_to_nibbles(weight: Floats, size: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """(P, K) -> levels (P, K/k, k) in -8 .. 7 and their scales (P, K/k).

    Of blocks [1, -2, 3, -4]: the scale is 0.5 and the levels [2, -4, 6, -8].
    """
    blocks = split_blocks(weight, size)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], axis=-1)
    full = np.asarray(largest / np.float32(LOWEST))
    best, best_error = np.ones_like(full), np.full_like(full, np.inf)
    for shrink in SHRINKS:
        scale: Floats = np.where(full == 0, 1, full * np.float32(shrink)).astype(np.float32)
        error = np.square(_levels(blocks, scale) * scale - blocks).sum(-1, keepdims=True)
        best = np.where(error < best_error, scale, best)
        best_error = np.minimum(error, best_error)
    return _levels(blocks, best).astype(np.int8), best[..., 0]


def _levels(blocks: Floats, scale: Floats) -> Floats:
    levels: Floats = np.rint(blocks / scale).clip(LOWEST, HIGHEST)
    return levels


def split_blocks(weight: Floats, size: int) -> Floats:
    """(P, K) -> (P, K/k, k), zeros at the end of a row that k does not divide."""
    outputs, inputs = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -inputs % size)))
    return padded.reshape(outputs, -1, size)


def pack_nibbles(levels: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """(P, K/k, k) in -8 .. 7 -> (P, K/k, k/2): the first of two in the low half of a byte."""
    nibbles = (levels - LOWEST).astype(np.uint8)
    return np.asarray(nibbles[..., ::2] | nibbles[..., 1::2] << 4)
