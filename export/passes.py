"""Graph rewrites that make a small file and few nodes; each leaves the function unchanged.

    name_weights    a transposed or sliced weight keeps the name of its torch parameter
    split_gemm      Gemm -> MatMul + Add                     onnxruntime's quantiser skips Gemm
    fold_scales     Mul(Linear(x), 0.5) -> Linear(x)         the constant goes into weight and bias
    sink_slices     Concat(Slice(a), Slice(b)) -> Slice(Concat(a, b))
    raise_axes      Unsqueeze(Concat(a, b)) -> Concat(Unsqueeze(a), Unsqueeze(b)), without a copy

onnxruntime fuses MatMul + Add back where it is faster.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[np.generic]


def constant(value: ir.Value | None) -> Array | None:
    """The constant an input holds, or None."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def add_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    # Not ascontiguousarray, which makes a vector of a scalar.
    value = ir.Value(name=name, const_value=ir.Tensor(np.asarray(array, order="C"), name=name))
    value.shape, value.type = (
        ir.Shape(array.shape),
        ir.TensorType(ir.DataType.from_numpy(array.dtype)),
    )
    graph.register_initializer(value)
    return value


def replace_node(graph: ir.Graph, node: ir.Node, with_nodes: list[ir.Node]) -> None:
    """Puts `with_nodes` in the place of `node`; the last one's output takes over."""
    old, new = node.outputs[0], with_nodes[-1].outputs[0]
    ir.convenience.replace_nodes_and_values(graph, node, [node], with_nodes, [old], [new])
    new.shape, new.type = old.shape, old.type


def bypass_node(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Removes `node`; `value` takes over its output, its name too if the graph gives it out."""
    old = node.outputs[0]
    given_out, name = old.is_graph_output(), old.name
    value.shape, value.type = old.shape, old.type
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if given_out:
        value.name = name


def weight_origins(graph: ir.Graph, parameters: Collection[str]) -> dict[str, str]:
    """Names of values that depend on constants alone -> the first torch parameter they hold."""
    origins: dict[str, str] = {}
    constants: set[ir.Value | None] = {None, *graph.initializers.values()}
    for node in graph:
        if constants.issuperset(node.inputs):
            constants.update(node.outputs)
            names = [value.name or "" for value in node.inputs if value is not None]
            held = [origins.get(name, name) for name in names]
            held = [name for name in held if name in parameters]
            origins.update((value.name or "", held[0]) for value in node.outputs if held)
    return origins


def name_weights(graph: ir.Graph, origins: Mapping[str, str]) -> None:
    """Gives a folded weight the name of its torch parameter, numbered where taken."""
    for value in list(graph.initializers.values()):
        wanted = name = origins.get(value.name or "")
        number = 1
        while name in graph.initializers:
            number += 1
            name = f"{wanted}.{number}"
        if name is not None:
            value.name = name


def split_gemm(graph: ir.Graph) -> None:
    """Gemm with a constant weight and plain alpha and beta -> MatMul + Add."""
    for node in list(graph):
        if node.op_type != "Gemm":
            continue
        weight = constant(node.inputs[1])
        numbers = {key: node.attributes.get_float(key, 1.0) for key in ("alpha", "beta")}
        flags = {key for key in ("transA", "transB") if node.attributes.get_int(key, False)}
        if weight is None or set(numbers.values()) != {1.0} or "transA" in flags:
            continue
        operand = node.inputs[1]
        assert operand is not None
        if "transB" in flags:
            operand = _transposed(graph, operand)
        nodes = [ir.node("MatMul", [node.inputs[0], operand])]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            nodes.append(ir.node("Add", [nodes[0].outputs[0], node.inputs[2]]))
        replace_node(graph, node, nodes)


def _transposed(graph: ir.Graph, weight: ir.Value) -> ir.Value:
    """The transposed constant; takes over the name when nothing else uses the weight."""
    array = constant(weight)
    assert array is not None
    if len(weight.uses()) == 1:
        weight.const_value = ir.Tensor(np.ascontiguousarray(array.T), name=weight.name)
        weight.shape = ir.Shape(array.T.shape)
        return weight
    return add_constant(graph, f"{weight.name}.T", array.T)


def fold_scales(graph: ir.Graph) -> None:
    """Moves a constant scalar factor back through Reshape and Transpose into a Linear."""
    for node in list(graph):
        if node.op_type != "Mul":
            continue
        for index in (0, 1):
            factor, value = constant(node.inputs[index]), node.inputs[1 - index]
            if factor is None or factor.size != 1 or value is None or constant(value) is not None:
                continue
            linear = _linear_before(value)
            if linear is not None:
                _scale_linear(graph, linear, factor)
                bypass_node(graph, node, value)
            break


def _only_use(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _linear_before(value: ir.Value) -> list[ir.Node] | None:
    """The MatMuls and Adds of one Linear, in blocks or not, whose result reaches only `value`'s one
    use; else None."""
    linear: list[ir.Node] = []
    while _only_use(value):
        node = value.producer()
        if node is None:
            return None
        if node.op_type in ("MatMul", "Concat"):
            products = [node] if node.op_type == "MatMul" else _joined_products(node)
            weights = [constant(product.inputs[1]) for product in products]
            known = bool(weights) and all(weight is not None for weight in weights)
            return [*products, *linear] if known else None
        operands = [v for v in node.inputs[:2] if v is not None and constant(v) is None]
        if node.op_type == "Add":
            linear.append(node)
        elif node.op_type not in ("Reshape", "Transpose"):
            return None
        if len(operands) != 1:
            return None
        value = operands[0]
    return None


def _joined_products(node: ir.Node) -> list[ir.Node]:
    """The MatMuls whose results alone `node` joins; else none."""
    values = [value for value in node.inputs if value is not None]
    products = [value.producer() for value in values if _only_use(value)]
    found = [p for p in products if p is not None and p.op_type == "MatMul"]
    return found if len(found) == len(values) else []


def _scale_linear(graph: ir.Graph, linear: list[ir.Node], factor: Array) -> None:
    for node in linear:
        for index, value in enumerate(node.inputs):
            array = constant(value)
            if array is None or value is None:
                continue
            if len(value.uses()) > 1:
                value = add_constant(graph, f"{value.name}.{len(graph.initializers)}", array)
                node.replace_input_with(index, value)
            scaled = (array * factor.reshape(())).astype(array.dtype)  # type: ignore[operator]
            value.const_value = ir.Tensor(scaled, name=value.name)


def sink_slices(graph: ir.Graph) -> None:
    """Concat of equal Slices along another axis -> one Slice of the Concat."""
    for node in list(graph):
        parts = [value.producer() if value is not None else None for value in node.inputs]
        if node.op_type != "Concat" or len(parts) < 2:
            continue
        slices = [p for p in parts if p is not None and p.op_type == "Slice"]
        if len(slices) != len(parts) or len({_slice_key(p) for p in slices}) != 1:
            continue
        key = _slice_key(slices[0])
        axis = node.attributes["axis"].as_int()
        if key is None or axis in key[2]:
            continue
        joined = ir.node("Concat", [p.inputs[0] for p in slices], {"axis": axis})
        after = ir.node("Slice", [joined.outputs[0], *slices[0].inputs[1:]])
        replace_node(graph, node, [joined, after])


def _slice_key(node: ir.Node) -> tuple[tuple[int, ...], ...] | None:
    """Starts, ends, axes, steps of a Slice with constant arguments."""
    arrays = [constant(value) for value in node.inputs[1:]]
    if len(arrays) < 3 or any(array is None for array in arrays):
        return None
    return tuple(tuple(int(v) for v in array) for array in arrays if array is not None)


def raise_axes(graph: ir.Graph) -> None:
    """The state that a graph gives out gets its first axis before its parts are joined.

    onnxruntime copies the input of an Unsqueeze that is an output: 50 us for 1.3 MB.
    """
    for node in list(graph):
        if node.op_type != "Unsqueeze" or not node.outputs[0].is_graph_output():
            continue
        joined = node.inputs[0].producer() if node.inputs[0] is not None else None
        axes = constant(node.inputs[1])
        if joined is None or joined.op_type != "Concat" or not _only_use(joined.outputs[0]):
            continue
        axis = joined.attributes["axis"].as_int()
        if axes is None or axes.tolist() != [0] or axis < 0:
            continue
        parts = [ir.node("Unsqueeze", [value, node.inputs[1]]) for value in joined.inputs]
        outputs = [part.outputs[0] for part in parts]
        replace_node(graph, node, [*parts, ir.node("Concat", outputs, {"axis": axis + 1})])
        graph.remove(joined, safe=True)
