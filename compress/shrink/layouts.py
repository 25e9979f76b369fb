"""Which zeros a matrix may hold: anywhere, n of m neighbours, or whole columns of a block of rows.

A weight counts as a matrix (R, C): output rows, and columns of everything they read. A layout
keeps `kept` of its R * C values where their scores are largest; sparsity is the share removed.

# Letters: R rows, C columns, G rows of a block.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from streaming.errors import InputError

COLUMNS_STEP = 4  # int8 kernels multiply four columns at once
SMALLEST_SHARE = 0.005  # of an unstructured matrix that always stays


class Layout(Protocol):
    """How zeros may lie; `spec` is its name in configurations."""

    @property
    def spec(self) -> str: ...

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """Raises InputError when weight `name` cannot be cut so."""

    def steps(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(fewest values that stay, values between one step and the next) of a matrix."""

    def mask(self, scores: Tensor, kept: int) -> Tensor:
        """scores (R, C) -> mask (R, C), True = keep, at most `kept` of them."""


@dataclass(frozen=True)
class Unstructured:
    """Single weights, wherever their scores are smallest (arXiv 1710.01878)."""

    spec: str = "unstructured"

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """Every matrix can."""

    def steps(self, shape: tuple[int, int]) -> tuple[int, int]:
        return math.ceil(SMALLEST_SHARE * math.prod(shape)), 1

    def mask(self, scores: Tensor, kept: int) -> Tensor:
        """
        >>> Unstructured().mask(torch.tensor([[1.0, -2, 3, -4]]).square(), 2)
        tensor([[False, False,  True,  True]])
        """
        return largest(scores.reshape(1, -1), kept).reshape(scores.shape)


@dataclass(frozen=True)
class Block:
    """`rows` neighbouring rows keep the same columns, all blocks the same number of them.

    Export makes a gather and a small dense product of it (export/sparse.py).
    """

    rows: int

    @property
    def spec(self) -> str:
        return f"block:{self.rows}"

    def check(self, name: str, shape: tuple[int, int]) -> None:
        if shape[0] % self.rows:
            sizes = [size for size in range(1, shape[0] + 1) if shape[0] % size == 0]
            raise InputError(
                f"{name} has {shape[0]} output rows, which blocks of {self.rows} do not divide: "
                f"choose one of {', '.join(map(str, sizes))}"
            )

    def steps(self, shape: tuple[int, int]) -> tuple[int, int]:
        step = min(COLUMNS_STEP, shape[1]) * shape[0]
        return step, step

    def mask(self, scores: Tensor, kept: int) -> Tensor:
        """
        >>> scores = torch.tensor([[9.0, 1, 2], [1.0, 1, 1], [0.0, 5, 0], [0.0, 5, 1]])
        >>> Block(2).mask(scores, kept=4).int()
        tensor([[1, 0, 0],
                [1, 0, 0],
                [0, 1, 0],
                [0, 1, 0]], dtype=torch.int32)
        """
        num_rows, num_columns = scores.shape
        blocks = scores.reshape(-1, self.rows, num_columns).sum(1)
        return largest(blocks, kept // num_rows).repeat_interleave(self.rows, dim=0)


@dataclass(frozen=True)
class NOfM:
    """At most `n` of `m` neighbouring columns (2:4 is arXiv 2104.08378's).

    On the way there the weakest of what has to go goes first; a last group of fewer than m
    columns stays whole.
    """

    n: int
    m: int

    @property
    def spec(self) -> str:
        return f"{self.n}:{self.m}"

    def check(self, name: str, shape: tuple[int, int]) -> None:
        if shape[1] < self.m:
            raise InputError(f"{name} has {shape[1]} columns, fewer than the {self.m} of a group")

    def steps(self, shape: tuple[int, int]) -> tuple[int, int]:
        groups = shape[1] // self.m
        return shape[0] * (shape[1] - groups * (self.m - self.n)), 1

    def mask(self, scores: Tensor, kept: int) -> Tensor:
        """
        >>> NOfM(2, 4).mask(torch.tensor([[1.0, 3, 2, 4], [5.0, 6, 7, 8]]), kept=6).int()
        tensor([[0, 1, 0, 1],
                [1, 1, 1, 1]], dtype=torch.int32)
        """
        num_rows, num_columns = scores.shape
        whole = num_columns // self.m * self.m
        stays = torch.ones_like(scores, dtype=torch.bool)
        groups = scores[:, :whole].reshape(-1, self.m)
        stays[:, :whole] = largest(groups, self.n).reshape(num_rows, whole)
        order = scores.masked_fill(stays, math.inf)
        return largest(order.reshape(1, -1), kept).reshape(scores.shape)


def largest(scores: Tensor, num_kept: int) -> Tensor:
    """(N, C) -> mask of the `num_kept` largest of each row."""
    order = scores.topk(num_kept, dim=1, sorted=False).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)


def parse_layout(spec: str) -> Layout | None:
    """The layout of a spec as `TransducerConfig.sparse` holds it; None for another pattern.

    Raises InputError for sizes that make no sense.
    """
    if spec == "unstructured":
        return Unstructured()
    if found := re.fullmatch(r"block:(\d+)", spec):
        if int(found[1]) < 1:
            raise InputError("a block has at least 1 row: block:64, for example")
        return Block(int(found[1]))
    if found := re.fullmatch(r"(\d+):(\d+)", spec):
        n, m = int(found[1]), int(found[2])
        if not 1 <= n < m:
            raise InputError(f"{spec}: n of m columns stay, 1 <= n < m: 2:4, for example")
        return NOfM(n, m)
    return None
