"""The forms a layer can be stored in, and which of them each layer of a graph gets.

    form    file        a weight is                          its input is
    fp32                32 bits                              32 bits
    int8    dynamic.py  8 bits, a scale for each output row  8 bits, range found in every call,
                                                             but for a tanh's, which is known
    static  static.py   8 bits, a scale for each output row  8 bits, range known before
    int4    int4.py     4 bits, a scale for 32 or 128 of it  8 bits, inside onnxruntime's kernel
    half    half.py     float16, widened on loading          32 bits

What a form cannot hold goes on to `otherwise`; LayerInfo says where it ended. Method qat is static
with ranges that training learned, and int8 for layers without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from export.errors import ExportError
from export.quantize.dynamic import write_int8
from export.quantize.half import write_half
from export.quantize.int4 import write_int4
from export.quantize.job import Job
from export.quantize.layers import LayerInfo, node_key, storage
from export.quantize.static import write_static

Method = Literal["int8", "static", "qat", "int4", "auto", "none"]
# The form of layers of which nothing else is said: auto says something of every layer, qat of those
# whose range was learned.
METHODS: dict[Method, str] = {
    "int8": "int8",
    "static": "static",
    "qat": "int8",
    "int4": "int4",
    "auto": "int8",
    "none": "fp32",
}
WEIGHTS = ("linear", "blocks", "lstm", "embedding", "convolution")


@dataclass(frozen=True)
class Form:
    """holds: what of layers.storage it can. otherwise: the form of all else.

    write: gives the weights of a job this form, in place or in the graph that it returns; what is
    stored is then called the weight's name + suffix.
    """

    bits: int
    holds: tuple[str, ...]
    otherwise: str
    suffix: str
    write: Callable[[ir.Model, Job], ir.Model]


# In the order they are written: onnxruntime's own quantiser, behind int8, knows fp32 graphs only.
FORMS: dict[str, Form] = {
    "int8": Form(8, ("linear", "blocks", "lstm", "embedding"), "half", "_quantized", write_int8),
    "static": Form(8, ("linear", "blocks"), "int8", "_quantized", write_static),
    "int4": Form(4, ("linear",), "int8", "_int4", write_int4),
    "half": Form(16, WEIGHTS, "fp32", "_half", write_half),
    "fp32": Form(32, WEIGHTS, "fp32", "", lambda model, job: model),
}


def check_method(name: str) -> Method:
    """`name` if it is one. Raises ExportError for any other."""
    for method in METHODS:
        if method == name:
            return method
    raise ExportError(f"--quantize is one of {', '.join(METHODS)}, got {name!r}")


def plan_forms(
    layers: Sequence[LayerInfo], default: str, forms: Mapping[str, str]
) -> dict[str, str]:
    """layer -> the form it gets: the one asked for, or what stands in where that cannot hold it.

    Raises ExportError for a form or a layer that is not there.
    """
    check_names(layers, default, forms)
    plan = {layer["name"]: find_form(layer, forms.get(layer["name"], default)) for layer in layers}
    for layer in layers:  # a node's weights have the form of the widest
        others = [plan[o["name"]] for o in layers if node_key(o) == node_key(layer)]
        plan[layer["name"]] = max(others, key=lambda form: FORMS[form].bits)
    return plan


def find_form(layer: LayerInfo, form: str) -> str:
    """ "static" of an LSTM is "int8", that of a convolution "half"."""
    while storage(layer) not in FORMS[form].holds and form != "fp32":
        form = FORMS[form].otherwise
    return form


def check_names(layers: Sequence[LayerInfo], default: str, forms: Mapping[str, str]) -> None:
    known = {layer["name"] for layer in layers}
    for name, form in {"": default, **forms}.items():
        if form not in FORMS:
            raise ExportError(f"no form {form!r}: choose one of {', '.join(FORMS)}")
        if name and name not in known:
            raise ExportError(f"no layer {name!r}: name one of {', '.join(sorted(known))}")
