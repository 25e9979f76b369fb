"""Slow twins of export/sparse*.py: masks by loops, dense products with the zeros left in."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def keep_blocks_(matrix: torch.Tensor, group_rows: int, num_kept: int) -> None:
    """Zeroes a weight (P, ...) seen as (P, K) in place: each group keeps its largest columns."""
    flat = matrix.data.flatten(1)
    for start in range(0, flat.shape[0], group_rows):
        group = flat[start : start + group_rows]
        scores = [float(column.square().sum()) for column in group.T]
        order = sorted(range(len(scores)), key=lambda column: -scores[column])
        for column in order[num_kept:]:
            group[:, column] = 0
    matrix.data.copy_(flat.reshape(matrix.shape))


def prune_blocks_(model: nn.Module, block_rows: dict[str, int], share_kept: float) -> None:
    """`keep_blocks_` on the weights of the layers named; both matrices of an LSTM."""
    for path, group_rows in block_rows.items():
        layer = model.get_submodule(path)
        names = ["weight_ih_l0", "weight_hh_l0"] if isinstance(layer, nn.LSTM) else ["weight"]
        for weight in (getattr(layer, name) for name in names):
            num_inputs = weight[0].numel()
            keep_blocks_(weight, group_rows, max(1, round(share_kept * num_inputs)))


def dense_int8(x: np.ndarray, matrix: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """x (N, K), matrix (P, K) -> (N, P) as dynamic int8 defines it: one scale and zero point for
    all of x, uint8; one scale a row, symmetric, zeros included."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    activations = np.clip(np.rint(x / scale) + zero, 0, 255) - zero
    result = np.empty((len(x), len(matrix)), dtype=np.float32)
    for row, weights in enumerate(matrix):
        row_scale = np.abs(weights).max() / np.float32(127) or np.float32(1)
        integers = np.rint(weights / row_scale)
        result[:, row] = activations @ integers * scale * row_scale + bias[row]
    return result
