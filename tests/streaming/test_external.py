"""Weights outside an ONNX file: our reader sees every place that protobuf's own reader sees."""

import random
import time

import onnx
import pytest
from onnx import TensorProto, helper

from streaming.errors import BundleError
from streaming.external import find_external

NAME = "g.onnx.data"


def outside(name, location=NAME, offset=0, length=16):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def build(*weights, nodes=()):
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph(list(nodes), "g", [], [y])
    graph.initializer.extend(weights)
    return helper.make_model(graph)


def write(folder, model, size=None):
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / "g.onnx").write_bytes(content)
    if size is not None:
        (folder / NAME).write_bytes(bytes(size))
    return folder / "g.onnx"


def test_by_hand(tmp_path):
    path = write(tmp_path, build(outside("a"), outside("b", offset=64, length=40)), 104)
    assert find_external(path) == NAME


def test_inside_is_none(tmp_path):
    weight = helper.make_tensor("location", TensorProto.FLOAT, [1], [1.0])
    assert find_external(write(tmp_path, build(weight))) is None
    assert find_external(write(tmp_path, b"")) is None


def far(kind):
    """A model with a weight elsewhere, in each place where onnx.proto has a tensor."""
    tensor = outside("far", "../secret")
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    if kind == "initializer":
        return build(tensor)
    if kind == "node":
        return build(nodes=[node])
    if kind == "inner graph":
        body = helper.make_graph([node], "b", [], [])
        return build(nodes=[helper.make_node("If", ["c"], ["y"], then_branch=body)])
    if kind == "list of tensors":
        return build(nodes=[helper.make_node("X", [], ["y"], many=[tensor, tensor])])
    if kind == "list of graphs":
        body = helper.make_graph([], "b", [], [], [tensor])
        return build(nodes=[helper.make_node("X", [], ["y"], many=[body])])
    model = build()
    if kind == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif kind == "indices":
        model.graph.sparse_initializer.add().indices.CopyFrom(tensor)
    elif kind == "function":
        model.functions.add().node.append(node)
    elif kind == "training":
        model.training_info.add().algorithm.initializer.append(tensor)
    return model


KINDS = ["initializer", "node", "inner graph", "list of tensors", "list of graphs"]
KINDS += ["sparse", "indices", "function", "training"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_place_is_overlooked(kind, tmp_path):
    with pytest.raises(BundleError, match=r"'\.\./secret', not in g\.onnx\.data: use a bundle"):
        find_external(write(tmp_path, far(kind), 16))


def test_value_before_key_and_long_numbers_are_read_too(tmp_path):
    """Protobuf allows fields in any order, and leading zeros in its numbers."""
    entry = b"\x12\x09../secret\x0a\x88\x00location"
    tensor = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    content = b"\x3a" + bytes([len(graph)]) + graph
    assert onnx.load_model_from_string(content).graph.initializer[0].external_data[0].value
    with pytest.raises(BundleError, match="secret"):
        find_external(write(tmp_path, content, 16))


def list_places(content):
    """The slow twin: every tensor of the model as protobuf reads it; None when it cannot."""
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # protobuf's own error has no public, typed name
        return None
    tensors = [
        *model.graph.initializer,
        *(a.t for node in model.graph.node for a in node.attribute if a.HasField("t")),
    ]
    return [e.value for t in tensors for e in t.external_data if e.key == "location"]


def test_damage_never_hides_a_place(tmp_path):
    """Whatever bytes change: refused, or all weights lie where they may."""
    node = helper.make_node("Constant", [], ["y"], value=outside("k", offset=16))
    content = build(outside("a"), nodes=[node]).SerializeToString()
    rng = random.Random(0)
    write(tmp_path, content, 32)
    begin, accepted = time.monotonic(), 0
    for _ in range(600):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path = write(tmp_path, bytes(damaged))
        try:
            found = find_external(path)
        except BundleError:
            continue
        places = list_places(bytes(damaged))
        assert places is None or set(places) <= ({NAME} if found else set())
        accepted += 1
    assert 20 < accepted < 580
    assert time.monotonic() - begin < 60, "no number in the file may cost time"


@pytest.mark.parametrize(
    ("weights", "size", "message"),
    [
        ([outside("a")], None, f"{NAME}: missing: copy"),
        ([outside("a")], 15, f"{NAME}: has 15 bytes, its graph declares 16: copy"),
        ([outside("a")], 17, f"{NAME}: has 17 bytes, its graph declares 16: copy"),
        ([outside("a", offset=-4)], 16, f"{NAME}: a weight has no offset and length"),
        ([outside("a", length=10**30)], 16, f"{NAME}: a weight has no offset and length"),
        ([outside("a", "")], 16, "weights lie in '', not in"),
        ([outside("a", "/etc/passwd")], 16, "weights lie in '/etc/passwd', not in"),
    ],
)
def test_wrong_sizes_and_places(weights, size, message, tmp_path):
    with pytest.raises(BundleError, match=message):
        find_external(write(tmp_path, build(*weights), size))


def wrap(tag, content):
    """A field of a message, in protobuf's own bytes."""
    size, number = len(content), b""
    while size > 127:
        number, size = number + bytes([size & 127 | 128]), size >> 7
    return tag + number + bytes([size]) + content


def test_deep_nesting_ends_in_a_line(tmp_path):
    content = outside("far", "../secret").SerializeToString()
    content = wrap(b"\x2a", content)  # an initializer of the innermost graph
    for depth in range(1, 1001):  # a graph with a node with an attribute with a graph ...
        content = wrap(b"\x0a", wrap(b"\x2a", wrap(b"\x32", content)))
        if depth == 5:
            with pytest.raises(BundleError, match="secret"):
                find_external(write(tmp_path, wrap(b"\x3a", content), 16))
    with pytest.raises(BundleError, match="not an ONNX file, or cut short"):
        find_external(write(tmp_path, wrap(b"\x3a", content), 16))
