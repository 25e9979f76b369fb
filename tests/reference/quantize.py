"""Slow twins of export/quantize: rows, blocks and nibbles one after the other."""

from __future__ import annotations

import numpy as np


def static_int8(x: np.ndarray, matrix: np.ndarray, low: float, high: float) -> np.ndarray:
    """x (N, K), matrix (P, K) -> (N, P): x rounded to 256 steps of low .. high and 0, each row of
    the matrix to its largest value / 127."""
    low, high = min(0.0, low), max(0.0, high)
    scale = np.float32((high - low) / 255)
    zero = np.rint(-low / scale)
    activations = np.clip(np.rint(x / scale) + zero, 0, 255) - zero
    result = np.empty((len(x), len(matrix)), dtype=np.float32)
    for row, weights in enumerate(matrix):
        row_scale = np.abs(weights).max() / np.float32(127) or np.float32(1)
        result[:, row] = activations @ np.rint(weights / row_scale) * scale * row_scale
    return result


def widen_int4(packed: np.ndarray, scales: np.ndarray, size: int, num_inputs: int) -> np.ndarray:
    """What MatMulNBits holds, (P, blocks, size / 2) bytes and a scale a block -> (P, K)."""
    matrix = np.zeros((len(packed), num_inputs), dtype=np.float32)
    scales = scales.reshape(len(packed), -1)
    for row in range(len(packed)):
        for column in range(num_inputs):
            byte = packed[row, column // size, column % size // 2]
            nibble = byte >> 4 if column % 2 else byte & 15
            matrix[row, column] = (int(nibble) - 8) * scales[row, column // size]
    return matrix


def integer_linear(
    x: np.ndarray, matrix: np.ndarray, bias: np.ndarray, low: float, high: float, gemm: bool
) -> np.ndarray:
    """x (N, K), matrix (P, K), bias (P,) -> (N, P), value by value, in Python's integers.

    gemm: the bias is an integer too, in steps of input times weight.
    """
    scale = np.float32((high - low) / 255)
    zero = int(np.rint(np.float32(-low) / scale))
    result = np.empty((len(x), len(matrix)), dtype=np.float32)
    for row, weights in enumerate(matrix):
        row_scale = np.abs(weights).max() / np.float32(127) or np.float32(1)
        integers = [int(np.rint(w / row_scale)) for w in weights]
        step = float(scale) * float(row_scale)
        for n, values in enumerate(x):
            levels = [min(max(int(np.rint(v / scale)) + zero, 0), 255) for v in values]
            total = sum((q - zero) * w for q, w in zip(levels, integers, strict=True))
            offset = round(float(bias[row]) / step) * step if gemm else float(bias[row])
            result[n, row] = total * step + offset
    return result
