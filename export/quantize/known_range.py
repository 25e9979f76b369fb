"""What a tanh gives out lies in [-1, 1]: int8 needs no range found in every call there.

The joiner's one matrix reads a tanh. With a range of its own in every call the logits of a frame
depend on the frames beside it; with the one that is known they are the same in any company, and a
recogniser may ask about all frames of a chunk at once (streaming/search/greedy.py).

    DynamicQuantizeLinear(tanh(x)) -> QuantizeLinear(tanh(x), 2/255, 128)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.passes import add_constant, constant

SCALE = np.array(2 / 255, dtype=np.float32)
ZERO_POINT = np.array(128, dtype=np.uint8)


def fix_known_ranges(graph: ir.Graph) -> None:
    """Replaces every DynamicQuantizeLinear that reads a Tanh, in place."""
    for node in [n for n in graph if n.op_type == "DynamicQuantizeLinear"]:
        source = node.inputs[0]
        maker = source.producer() if source else None
        if maker is None or maker.op_type != "Tanh":
            continue
        quantised, scale, zero_point = node.outputs
        constants = [
            add_constant(graph, f"{value.name}_known", array)
            for value, array in ((scale, SCALE), (zero_point, ZERO_POINT))
        ]
        fixed = ir.node("QuantizeLinear", [source, *constants])
        fixed.outputs[0].name = f"{quantised.name}_known"
        graph.insert_before(node, fixed)
        for old, new in zip(node.outputs, (*fixed.outputs, *constants), strict=True):
            old.replace_all_uses_with(new)
        graph.remove(node, safe=True)
        fold_products(graph, constants[0])


def fold_products(graph: ir.Graph, scale: ir.Value) -> None:
    """Where the scale is multiplied with another constant, that of the weight: the product."""
    for node in [node for node, _ in scale.uses() if node.op_type == "Mul"]:
        one, other = (constant(value) for value in node.inputs)
        if one is None or other is None:
            continue
        product = np.asarray(one) * np.asarray(other)
        folded = add_constant(graph, f"{node.outputs[0].name}_known", product)
        node.outputs[0].replace_all_uses_with(folded)
        graph.remove(node, safe=True)
