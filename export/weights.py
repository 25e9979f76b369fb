"""The weights of an ONNX file: as many values as they declare, all finite, none far away.

A forged shape costs no memory here: sizes are compared as numbers before anything is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
COMPLEX = {TensorProto.COMPLEX64, TensorProto.COMPLEX128}


def find_bad_weight(model: onnx.ModelProto, folder: Path) -> str:
    """What is wrong with the first bad weight, with the fix; "" when all are fit."""
    if model.graph.sparse_initializer:
        return "holds sparse weights, which onnxruntime refuses: export them dense"
    for weight in list_tensors(model.graph):
        problem = check_weight(weight, folder)
        if problem:
            return problem
    return ""


def list_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Initialisers and the tensors of Constant nodes, those of subgraphs too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from list_tensors(attribute.g)


def check_weight(weight: TensorProto, folder: Path) -> str:
    shape = list(weight.dims)
    known = weight.data_type in TensorProto.DataType.values() and weight.data_type
    if not known or min(shape, default=1) < 0:
        return f"{weight.name} has type {weight.data_type} and shape {shape}: export it again"
    if weight.data_location == TensorProto.EXTERNAL:
        return check_external(weight, folder)
    wanted, found = math.prod(shape), count_values(weight)
    if wanted != found:
        return f"{weight.name} declares {shape} and holds {found} values: copy or export it again"
    if weight.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
        values = numpy_helper.to_array(weight)
        mask = values.size == 1 and not np.isnan(values).any()  # -inf hides what is not attended
        if not (mask or np.isfinite(values).all()):
            return f"{weight.name} holds NaN or infinity: train again"
    return ""


def count_values(weight: TensorProto) -> int:
    """How many values the file holds for it, whatever it declares; -1 for half a value."""
    if weight.data_type == TensorProto.STRING:
        return len(weight.string_data)
    declared, per_byte = math.prod(weight.dims), values_per_byte(weight)
    if weight.HasField("raw_data"):
        held = len(weight.raw_data)
    else:
        held = max(len(getattr(weight, name)) for name in TYPED_FIELDS)
        held = held // 2 if weight.data_type in COMPLEX else held
        if per_byte <= 1:
            return held
    if per_byte > 1:  # the last byte may be half full
        return declared if held == -(-declared // per_byte) else held * per_byte
    size = num_bytes(weight, 1)
    return held // size if held % size == 0 else -1


def values_per_byte(weight: TensorProto) -> int:
    """2 of a 4-bit type, 4 of a 2-bit one, else 1."""
    name = TensorProto.DataType.Name(weight.data_type)
    return 2 if name in ("INT4", "UINT4", "FLOAT4E2M1") else 4 if name in ("INT2", "UINT2") else 1


def num_bytes(weight: TensorProto, count: int) -> int:
    """Bytes of `count` values as raw data."""
    per_byte = values_per_byte(weight)
    if per_byte > 1:
        return -(-count // per_byte)
    return count * int(helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize)


def check_external(weight: TensorProto, folder: Path) -> str:
    """A weight in another file: that must lie in the folder and be long enough."""
    entries = {entry.key: entry.value for entry in weight.external_data}
    name = entries.get("location", "")
    path = folder / name
    plain = name == PurePosixPath(name).name and name not in ("", ".", "..") and "\\" not in name
    if not plain or not path.resolve().is_relative_to(folder.resolve()):
        return f"{weight.name} lies in {name!r}, outside the folder: use a model you trust"
    if not path.is_file():
        return f"{weight.name} lies in {name}, which is missing: copy the model with all its files"
    numbers = [entries.get(key, "0") for key in ("offset", "length")]
    if not all(n.isascii() and n.isdigit() and len(n) < 19 for n in numbers):
        return f"{weight.name} has offset and length {numbers} in {name}: export it again"
    offset, length = map(int, numbers)
    wanted = num_bytes(weight, math.prod(weight.dims))
    if (length or wanted) != wanted or offset + wanted > path.stat().st_size:
        return f"{weight.name} needs {wanted} bytes of {name}, which has less: copy it again"
    return ""
