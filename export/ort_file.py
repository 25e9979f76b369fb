"""Files of onnxruntime's own format (.ort), read without running them.

They are flatbuffers, which onnxruntime's Python tools come with a reader for. `read_ort` gives what
the validator asks of an ONNX file; `write_config` what a minimal build of onnxruntime must hold.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

CONFIG_FILE = "required_operators_and_types.config"
Table = Any  # the generated readers have no types


def read_ort(path: Path) -> onnx.ModelProto:
    """Interface, metadata, operators and weights of an .ort file as an ONNX model.

    Nodes have an operator and a domain and nothing else: not one to run. Raises ValueError for
    what is no .ort file, and whatever the flatbuffers reader raises for a damaged one.
    """
    source = _open(path)
    graph: Table = source.Graph()
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op, [], [], domain=domain) for domain, _, op in _read_nodes(graph)],
            "g",
            [_read_value(graph, graph.Inputs(i)) for i in range(graph.InputsLength())],
            [_read_value(graph, graph.Outputs(i)) for i in range(graph.OutputsLength())],
            list(_read_weights(graph, path.stat().st_size)),
        ),
        ir_version=source.IrVersion(),
        opset_imports=list(_read_opsets(source)),
    )
    entries = [source.MetadataProps(i) for i in range(source.MetadataPropsLength())]
    helper.set_model_props(model, {_text(e.Key()): _text(e.Value()) for e in entries})
    return model


def list_operators(path: Path) -> set[tuple[str, int, str]]:
    """(domain, opset that the operator is of, operator) of the nodes; inner graphs we have none."""
    nodes = _read_nodes(_open(path).Graph())
    return {(domain or "ai.onnx", since, operator) for domain, since, operator in nodes}


def write_config(paths: Sequence[Path], config: Path) -> None:
    """What a build of onnxruntime for these .ort files must hold, for --include_ops_by_config.

    Made from the optimised graphs: the .onnx files use other operators, and a build with those
    cannot load the .ort files. A build with --enable_reduced_operator_type_support needs its types.
    """
    tools = _load_tools()
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files to the collector
        raw = Path(scratch) / "config"
        tools.create_config_from_models(sorted(paths), raw, enable_type_reduction=True)
        lines = raw.read_text(encoding="utf-8").splitlines()
    # It names the files by their paths on this machine.
    rows = [f"# - {Path(line[4:]).name}" if line.startswith("# - ") else line for line in lines]
    config.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _load_tools() -> Any:
    """onnxruntime's own, without the log that they give the whole program and write into."""
    handlers = logging.root.handlers[:]
    from onnxruntime.tools import ort_format_model

    logging.root.handlers[:] = handlers
    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
    return ort_format_model


def _open(path: Path) -> Table:
    """The model in an .ort file."""
    _load_tools()  # puts the readers on the path
    from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    data = bytearray(path.read_bytes())
    if not InferenceSession.InferenceSessionBufferHasIdentifier(data, 0):
        raise ValueError("no .ort file")
    return InferenceSession.GetRootAsInferenceSession(data, 0).Model()


def _read_nodes(graph: Table) -> Iterator[tuple[str, int, str]]:
    for i in range(graph.NodesLength()):
        node = graph.Nodes(i)
        yield _text(node.Domain()), node.SinceVersion(), _text(node.OpType())


def _read_opsets(model: Table) -> Iterator[onnx.OperatorSetIdProto]:
    for i in range(model.OpsetImportLength()):
        opset = model.OpsetImport(i)
        yield helper.make_opsetid(_text(opset.Domain()), opset.Version())


def _read_value(graph: Table, name: bytes) -> onnx.ValueInfoProto:
    """An input or output by its name, with type and shape."""
    from ort_flatbuffers_py.fbs.TensorTypeAndShape import TensorTypeAndShape

    values = (graph.NodeArgs(i) for i in range(graph.NodeArgsLength()))
    value = next(value for value in values if value.Name() == name)
    tensor, table = TensorTypeAndShape(), value.Type().Value()
    tensor.Init(table.Bytes, table.Pos)
    dims = [tensor.Shape().Dim(i).Value() for i in range(tensor.Shape().DimLength())]
    shape = [_text(dim.DimParam()) or dim.DimValue() for dim in dims]
    return helper.make_tensor_value_info(_text(name), tensor.ElemType(), shape)


def _read_weights(graph: Table, size: int) -> Iterator[onnx.TensorProto]:
    """All weights. Raises ValueError when they are larger than the file: they share bytes."""
    left = size
    for i in range(graph.InitializersLength()):
        tensor = graph.Initializers(i)
        left -= tensor.RawDataLength()
        if left < 0:
            raise ValueError("weights larger than the file")
        raw = tensor.RawDataAsNumpy().tobytes() if tensor.RawDataLength() else b""
        dims = [tensor.Dims(j) for j in range(tensor.DimsLength())]
        yield onnx.TensorProto(
            name=_text(tensor.Name()), data_type=tensor.DataType(), dims=dims, raw_data=raw
        )


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
