"""LSTM layers for the latency table: the operator, and an unrolled frame without its products.

# Letters: S frames, H hidden units; as many inputs as hidden units.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.graph import IR_VERSION, OPSET
from export.passes import add_constant
from export.stopwatch import Layer, Precision, Timed, append_node, make_input, open_session

FRAMES = 8  # of the graph that measures gates


def measure_lstm(hidden: int, rows: int, precision: Precision, rounds: int = 5) -> float:
    """Microseconds of the LSTM operator, or DynamicQuantizeLSTM, over `rows` frames."""
    copies = Layer(hidden, 8 * hidden, rows).copies
    return _best(_lstm_graph(hidden, precision, copies), rows, copies, rounds)


def measure_gates(hidden: int, rounds: int = 5) -> float:
    """Microseconds of a frame of export/sparse_lstm.py without its matrix products."""
    return _best(_gates_graph(hidden), 1, FRAMES, rounds)


def _best(model: ir.Model, rows: int, share: int, rounds: int) -> float:
    timed = Timed(open_session(model), rows, share)
    timed.warm_up()
    for _ in range(rounds):
        timed.run()
    return timed.best_us


def _new_graph(inputs: list[ir.Value]) -> ir.Graph:
    opsets = {"": OPSET, "com.microsoft": 1}
    return ir.Graph(inputs, [], nodes=[], opset_imports=opsets, name="g")


def _lstm_graph(hidden: int, precision: Precision, copies: int) -> ir.Model:
    inputs = [make_input(f"x{number}", ("S", 1, hidden)) for number in range(copies)]
    graph = _new_graph(inputs)
    rng = np.random.default_rng(0)
    for number, x in enumerate(inputs):
        bias = add_constant(graph, f"b{number}", np.zeros((1, 8 * hidden), dtype=np.float32))
        empty: list[ir.Value | None] = [bias, None, None, None]
        names = (f"w{number}", f"r{number}")
        if precision == "fp32":
            shape = (1, 4 * hidden, hidden)
            weights: list[ir.Value | None] = [
                add_constant(graph, name, rng.standard_normal(shape, dtype=np.float32) / hidden)
                for name in names
            ]
            node = ir.node("LSTM", [x, *weights, *empty], {"hidden_size": hidden}, num_outputs=3)
        else:
            weights, scales = [], []
            for name in names:
                array = rng.integers(-127, 128, (1, hidden, 4 * hidden), dtype=np.int8)
                weights.append(add_constant(graph, name, array))
                scale = np.full((1, 4 * hidden), 1e-4, dtype=np.float32)
                zero = np.zeros((1, 4 * hidden), dtype=np.int8)
                scales += [
                    add_constant(graph, f"{name}_scale", scale),
                    add_constant(graph, f"{name}_zero", zero),
                ]
            node = ir.node(
                "DynamicQuantizeLSTM",
                [x, *weights, *empty, None, *scales],
                {"hidden_size": hidden},
                domain="com.microsoft",
                num_outputs=3,
            )
        graph.append(node)
        _give_out(graph, node.outputs[0], ("S", 1, 1, hidden))
    return ir.Model(graph, ir_version=IR_VERSION)


def _gates_graph(hidden: int) -> ir.Model:
    """FRAMES frames, one after the other."""
    inputs = [make_input(f"x{frame}", (1, 4 * hidden)) for frame in range(FRAMES)]
    product = make_input("product", (1, 4 * hidden))
    c = make_input("c", (1, hidden))
    graph = _new_graph([*inputs, product, c])
    for x in inputs:
        split = ir.node(
            "Split", [append_node(graph, "Add", [x, product])], {"axis": 1}, num_outputs=4
        )
        graph.append(split)
        i, f, candidate, o = split.outputs
        i, f, o = (append_node(graph, "Sigmoid", [gate]) for gate in (i, f, o))
        new = append_node(graph, "Mul", [i, append_node(graph, "Tanh", [candidate])])
        c = append_node(graph, "Add", [append_node(graph, "Mul", [f, c]), new])
        h = append_node(graph, "Mul", [o, append_node(graph, "Tanh", [c])])
        _give_out(graph, h, (1, hidden))
    return ir.Model(graph, ir_version=IR_VERSION)


def _give_out(graph: ir.Graph, value: ir.Value, shape: tuple[int | str, ...]) -> None:
    value.shape, value.type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    graph.outputs.append(value)
