"""Bundles broken by hand: one line that names file and fix, from open_bundle() and validate.

Where hashes would find the damage first, they are written anew, so that what they hide is tested.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import streaming
from compress.cli import run_app
from export.convert import write_external, write_ort
from streaming.bundle import write_sha256sums
from streaming.errors import InputError
from tests.streaming.tiny_bundle import build_bundle

GRAPH = "encoder.int8.onnx"
DATA = "encoder.int8.onnx.data"
ORT = "encoder.int8.ort"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return build_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def bundle(tiny, tmp_path):
    """A copy to break."""
    return shutil.copytree(tiny, tmp_path / "bundle")


def edit(name):
    """Turns a change of a model into one of the file `name` of a bundle."""

    def wrap(change):
        def damage(folder):
            model = onnx.load(folder / name, load_external_data=False)
            change(model)
            (folder / name).write_bytes(model.SerializeToString())

        return damage

    return wrap


def matrix_outside(model):
    return next(i for i in model.graph.initializer if i.external_data)


def matrix(model):
    return max(model.graph.initializer, key=lambda i: len(i.raw_data))


def edit_json(**changes):
    def damage(folder):
        path = folder / "bundle.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def tokens(change):
    def damage(folder):
        path = folder / "tokens.txt"
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return damage


def flip_byte(folder):
    data = bytearray((folder / GRAPH).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / GRAPH).write_bytes(data)


def cut_short(folder):
    (folder / GRAPH).write_bytes((folder / GRAPH).read_bytes()[:-100])


@edit(GRAPH)
def rename_tensor(model):
    for value in (*model.graph.output, *model.graph.node):
        if isinstance(value, onnx.NodeProto):
            value.output[:] = ["other\nname" if n == "encoder_out" else n for n in value.output]
        elif value.name == "encoder_out":
            value.name = "other\nname"


def climb_in_json(folder):
    files = json.loads((folder / "bundle.json").read_text())["files"]
    files["int8"]["encoder"] = "../encoder.onnx"
    edit_json(files=files)(folder)


def climb_in_sums(folder):
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  ../../etc/passwd\n")


def link_outside(folder):
    (folder / GRAPH).rename(folder.parent / "elsewhere.onnx")
    (folder / GRAPH).symlink_to(folder.parent / "elsewhere.onnx")


def link_sums(folder):
    (folder / "SHA256SUMS").rename(folder.parent / "sums")
    (folder / "SHA256SUMS").symlink_to(folder.parent / "sums")


def folder_for_file(folder):
    (folder / GRAPH).unlink()
    (folder / GRAPH).mkdir()


@edit(GRAPH)
def huge_weight(model):
    """4 TB declared, 4 bytes there, read by a node that infers nothing from it."""
    weight = model.graph.initializer.add(name="big", data_type=TensorProto.FLOAT, raw_data=b"1234")
    weight.dims.extend([1 << 20, 1 << 20])
    model.graph.node.append(helper.make_node("Shape", ["big"], ["unused"]))


@edit(GRAPH)
def negative_weight(model):
    matrix(model).dims[0] = -1


def huge_in_json(folder):
    tensors = json.loads((folder / "bundle.json").read_text())["tensors"]
    tensors["encoder"]["inputs"][1]["shape"] = [1, "N", 1 << 60]
    edit_json(tensors=tensors)(folder)


@edit("joiner.int8.onnx")
def poison(model):
    scale = next(i for i in model.graph.initializer if i.data_type == TensorProto.FLOAT)
    array = numpy_helper.to_array(scale).copy()
    array.flat[0] = np.nan
    scale.CopyFrom(numpy_helper.from_array(array, scale.name))


def swap_networks(folder):
    encoder, joiner = (folder / GRAPH).read_bytes(), (folder / "joiner.int8.onnx").read_bytes()
    (folder / GRAPH).write_bytes(joiner)
    (folder / "joiner.int8.onnx").write_bytes(encoder)


@edit(GRAPH)
def other_chunk(model):
    """An encoder of another bundle: chunks of 16 frames."""
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16
    for entry in model.metadata_props:
        entry.value = "16" if entry.key in ("T", "decode_chunk_len") else entry.value


@edit(GRAPH)
def fix_streams(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


@edit(GRAPH)
def fix_streams_within(model):
    """Free on the outside; inside a Reshape to one stream."""
    constant = numpy_helper.from_array(np.array([1, 8, 320]), "stack")
    old = next(i for i in model.graph.initializer if i.name == "stack")
    old.CopyFrom(constant)


@edit(GRAPH)
def new_ir(model):
    model.ir_version = 14


@edit(GRAPH)
def new_opset(model):
    next(o for o in model.opset_import if o.domain == "").version = 99


@edit(GRAPH)
def no_metadata(model):
    model.ClearField("metadata_props")


@edit(GRAPH)
def unknown_type(model):
    next(e for e in model.metadata_props if e.key == "model_type").value = "tcn" * 1000


@edit("decoder.int8.onnx")
def wild_vocabulary(model):
    next(e for e in model.metadata_props if e.key == "vocab_size").value = "9" * 5000


@edit("decoder.int8.onnx")
def large_vocabulary(model):
    next(e for e in model.metadata_props if e.key == "vocab_size").value = "9" * 15


@edit("decoder.int8.onnx")
def time_axis(model):
    last = model.graph.node[-1]
    model.graph.node.append(helper.make_node("Unsqueeze", ["flat_out", "one"], [last.output[0]]))
    last.output[0] = "flat_out"
    dim = model.graph.output[0].type.tensor_type.shape.dim.add()
    dim.dim_value = 1


def far_weight(location):
    @edit(GRAPH)
    def damage(model):
        weight = matrix(model)
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)

    return damage


@edit(GRAPH)
def two_places(model):
    """The first place is the right one; protobuf's readers may believe either."""
    weight = matrix(model)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for place in (DATA, "../secret"):
        weight.external_data.add(key="location", value=place)


@edit(GRAPH)
def far_constant(model):
    """In the attribute of a node in a graph within a node."""
    far = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[4])
    far.data_location = TensorProto.EXTERNAL
    far.external_data.add(key="location", value="../secret")
    inner = helper.make_node("Constant", [], ["k"], value=far)
    body = helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("k", 1, [4])])
    model.graph.node.append(helper.make_node("If", ["c"], ["o"], then_branch=body))


def outside(damage):
    """Damages a bundle whose encoder keeps its weights in another file."""

    def change(folder):
        path = folder / GRAPH
        (folder / "old").mkdir()
        path.rename(folder / "old" / GRAPH)
        write_external(folder / "old" / GRAPH, folder)
        shutil.rmtree(folder / "old")
        write_sha256sums(folder)
        damage(folder)

    return change


def as_ort(damage):
    """Damages a bundle whose int8 graphs are .ort files."""

    def change(folder):
        files = json.loads((folder / "bundle.json").read_text())["files"]
        for graph, name in files["int8"].items():
            files["int8"][graph] = write_ort(folder / name, folder).name
            (folder / name).unlink()
        edit_json(files=files)(folder)
        damage(folder)

    return change


def append(path, content):
    path.write_bytes(path.read_bytes() + content)


def flip_data(folder):
    data = bytearray((folder / DATA).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / DATA).write_bytes(data)


def forget_hash(folder):
    path = folder / "SHA256SUMS"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if DATA not in line))


def link_data(folder):
    (folder / DATA).rename(folder.parent / "elsewhere.data")
    (folder / DATA).symlink_to(folder.parent / "elsewhere.data")


@edit(GRAPH)
def wild_length(model):
    next(e for e in matrix_outside(model).external_data if e.key == "length").value = "9" * 30


@edit(GRAPH)
def foreign_operator(model):
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    model.graph.node[0].domain = "my.ops"


@edit(GRAPH)
def circle(model):
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


@dataclass(frozen=True)
class Break:
    """opened, validated: what each says, None where that one has nothing to say."""

    damage: object
    opened: str | None
    validated: str
    hashed: bool = True


BREAKS = {
    "wrong hash": Break(flip_byte, *[f"{GRAPH}: does not match .*copy"] * 2, hashed=False),
    "truncated": Break(cut_short, *[f"{GRAPH}: does not match .*copy"] * 2, hashed=False),
    "truncated, hashed": Break(cut_short, f"{GRAPH}: .*export", f"{GRAPH}: not an ONNX.*copy"),
    "empty file": Break(write(GRAPH, b""), f"{GRAPH}: .*export", f"{GRAPH}: not an ONNX.*copy"),
    "renamed tensor": Break(rename_tensor, *[f"{GRAPH}: output is .*export"] * 2),
    "extra file": Break(write("run.sh", b"x"), None, "run.sh: not in .*remove it", hashed=False),
    "climbs in bundle.json": Break(
        climb_in_json, *["bundle.json: path '../enc.*leaves.*trust"] * 2
    ),
    "climbs in sums": Break(climb_in_sums, *["SHA256SUMS: path .*leaves.*trust"] * 2, hashed=False),
    "link": Break(link_outside, *[f"path '{GRAPH}' leaves the bundle.*trust"] * 2),
    "linked sums": Break(link_sums, *["'SHA256SUMS' leaves the bundle.*trust"] * 2, hashed=False),
    "a folder": Break(folder_for_file, *[f"{GRAPH}: missing: copy"] * 2, hashed=False),
    "huge weight": Break(huge_weight, f"{GRAPH}: .*export", f"{GRAPH}: big declares .*export it"),
    "negative weight": Break(negative_weight, f"{GRAPH}: .*export", f"{GRAPH}: .* shape .*export"),
    "huge in bundle.json": Break(
        huge_in_json, *["bundle.json: tensors of encoder inputs .*export"] * 2
    ),
    "huge state": Break(
        edit_json(state_sizes=[1 << 60, 1]), *["bundle.json: state_sizes must .*export"] * 2
    ),
    "other schema": Break(edit_json(schema=7), *["bundle.json: schema 7.*export"] * 2),
    "schema of text": Break(edit_json(schema="x" * 9999), *["bundle.json: schema 'xx.*export"] * 2),
    "a list": Break(write("bundle.json", b"[1]"), *["bundle.json: not a JSON object.*export"] * 2),
    "deep": Break(
        write("bundle.json", b"[" * 100000), *["bundle.json: not valid JSON.*export"] * 2
    ),
    "not text": Break(
        write("bundle.json", b"\xff\xfe{}"), *["bundle.json: not valid JSON.*export"] * 2
    ),
    "100 MB": Break(
        write("bundle.json", b" " * 100_000_000), *["bundle.json: larger than 16 MiB: export"] * 2
    ),
    "long sums": Break(
        write("SHA256SUMS", b"0" * (2 << 20)),
        *["SUMS: larger than 1 MiB: export"] * 2,
        hashed=False,
    ),
    "garbage sums": Break(
        write("SHA256SUMS", b"\x00\xff\n"), *["SUMS:1: not 'HASH +NAME': copy"] * 2, hashed=False
    ),
    "NaN": Break(poison, None, "joiner.int8.onnx: .* holds NaN or infinity: train"),
    "swapped networks": Break(swap_networks, f"{GRAPH}: .*export", f"{GRAPH}: .*model_type .*set"),
    "encoder of another": Break(other_chunk, f"{GRAPH}: .*export", f"{GRAPH}: .*export"),
    "no tokens": Break(
        lambda f: (f / "tokens.txt").unlink(), *["SUMS: no hash for tokens.txt"] * 2
    ),
    "doubled id": Break(
        tokens(lambda lines: [*lines[:-1], lines[-2]]),
        "tokens.txt:30: not 'symbol id', ids once: export",
        "tokens.txt:30: id 28 is there twice: number",
    ),
    "blank elsewhere": Break(
        tokens(lambda lines: ["<unk> 0", "<blk> 1", *lines[2:]]),
        "tokens.txt: .* 0 is not <blk>: export",
        "tokens.txt: id 0 is '<unk>', .* put <blk> first",
    ),
    "wild id": Break(
        tokens(lambda lines: [*lines[:-1], f"z {'9' * 5000}"]),
        "tokens.txt:30: not 'symbol id'.*export",
        "tokens.txt:30: not 'symbol id'.*fix",
    ),
    "static batch": Break(
        fix_streams, f"{GRAPH}: input is 'x' .*export", f"{GRAPH}: x is fixed to 1"
    ),
    "static batch inside": Break(
        fix_streams_within, None, "does not run .*export|cannot run .*export"
    ),
    "IR 14": Break(new_ir, f"{GRAPH}: .*export", f"{GRAPH}: IR 14 is refused .* write IR 8"),
    "opset 99": Break(new_opset, f"{GRAPH}: .*export", f"{GRAPH}: opset 99 .* write opset 17"),
    "no metadata": Break(no_metadata, None, f"{GRAPH}: metadata model_type is None: set"),
    "unknown type": Break(unknown_type, None, f"{GRAPH}: metadata model_type is 'tcn.*"),
    "wild vocabulary": Break(wild_vocabulary, None, "decoder.int8.onnx: metadata vocab_size .*"),
    "large vocabulary": Break(large_vocabulary, None, "tokens.txt: no symbol for id 30 .*export"),
    "3-D decoder": Break(
        time_axis, "decoder.int8.onnx: output .*export", "decoder.int8.onnx: output must .*drop"
    ),
    "weights outside": Break(
        far_weight("../secret"), *[f"{GRAPH}: weights lie in '../secret', not in .*trust"] * 2
    ),
    "weights of /etc": Break(
        far_weight("/etc/passwd"), *[f"{GRAPH}: weights lie in '/etc/passwd', .*trust"] * 2
    ),
    "weights in memory": Break(
        far_weight("*/_ORT_MEM_ADDR_/*"), *[f"{GRAPH}: weights lie in .*MEM_ADDR.*trust"] * 2
    ),
    "weights not there": Break(far_weight(DATA), *[f"{DATA}: missing: copy"] * 2),
    "weights of two places": Break(two_places, *[f"{GRAPH}: not an ONNX file.*export"] * 2),
    "weights in a node": Break(
        far_constant, *[f"{GRAPH}: weights lie in '../secret', not in .*trust"] * 2
    ),
    "external, missing": Break(
        outside(lambda f: (f / DATA).unlink()), *[f"{DATA}: missing: copy"] * 2
    ),
    "external, not hashed": Break(
        outside(forget_hash), *[f"SUMS: no hash for {DATA}: export"] * 2, hashed=False
    ),
    "external, wrong hash": Break(
        outside(flip_data), *[f"{DATA}: does not match .*copy"] * 2, hashed=False
    ),
    "external, larger": Break(
        outside(lambda f: append(f / DATA, b"xx")),
        *[f"{DATA}: has \\d+ bytes, its graph declares \\d+: copy"] * 2,
    ),
    "external, cut short": Break(
        outside(lambda f: write(DATA, (f / DATA).read_bytes()[:-9])(f)),
        *[f"{DATA}: has \\d+ bytes, its graph declares \\d+: copy"] * 2,
    ),
    "external, a link": Break(
        outside(link_data), *[f"path '{DATA}' leaves the bundle.*trust"] * 2, hashed=True
    ),
    "external, wild length": Break(
        outside(wild_length), *[f"{DATA}: a weight has no offset and length .*export"] * 2
    ),
    "ort, cut short": Break(
        as_ort(lambda f: write(ORT, (f / ORT).read_bytes()[:-100])(f)),
        f"{ORT}: .*export",
        f"{ORT}: (not an .ort file, or cut short|onnxruntime).*export",
    ),
    "ort, empty": Break(
        as_ort(write(ORT, b"")), f"{ORT}: .*export", f"{ORT}: not an .ort file.*export"
    ),
    "ort, an .onnx inside": Break(
        as_ort(lambda f: write(ORT, (f / "encoder.onnx").read_bytes())(f)),
        f"{ORT}: .*export",
        f"{ORT}: not an .ort file.*export",
    ),
    "ort, another network": Break(
        as_ort(lambda f: write(ORT, (f / "joiner.int8.ort").read_bytes())(f)),
        f"{ORT}: .*export",
        f"{ORT}: .*model_type .*set",
    ),
    "foreign operator": Break(
        foreign_operator, f"{GRAPH}: .*export", f"{GRAPH}: operators of my.ops .*use standard"
    ),
    "circle": Break(circle, f"{GRAPH}: .*export", f"{GRAPH}: .*export"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_by_hand(name, bundle, capsys):
    case = BREAKS[name]
    case.damage(bundle)
    if case.hashed:
        write_sha256sums(bundle)
    if case.opened is not None:
        with pytest.raises(InputError) as caught:
            streaming.open_bundle(bundle)
        message = str(caught.value)
        assert re.search(case.opened, message), message
        assert len(message) < 1000
        assert "\n" not in message
    assert run_app(["validate", str(bundle)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if re.search(case.validated, line)], lines
    for line in lines:
        assert line.startswith(f"compress: {bundle}"), line
        assert len(line) < 1000
        assert "Traceback" not in line


def test_whole_bundles_pass(bundle, capsys):
    (bundle / ".DS_Store").write_bytes(b"the system's")
    assert run_app(["validate", str(bundle)]) == 0
    out, err = capsys.readouterr()
    assert "family lstm; chunks of 32 frames = 320 ms; 30 tokens, blank 0; 80 mel bins" in out
    assert "\nfp32: encoder.onnx 0.0" in out
    assert "\nint8: encoder.int8.onnx 0.0" in out
    assert err == f"next: compress verify {bundle}\n"


def test_other_peoples_folders_pass(bundle, capsys):
    for name in ("bundle.json", "SHA256SUMS"):
        (bundle / name).unlink()
    assert run_app(["validate", str(bundle)]) == 0
    assert f"next: sherpa-onnx --tokens={bundle}/tokens.txt" in capsys.readouterr().err


def test_in_other_peoples_folders_graphs_are_run_too(bundle, capsys):
    for name in ("bundle.json", "SHA256SUMS"):
        (bundle / name).unlink()
    fix_streams_within(bundle)
    assert run_app(["validate", str(bundle)]) == 2
    assert f"{GRAPH}: onnxruntime" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [huge_weight, huge_in_json])
def test_a_declared_size_costs_no_memory(damage, bundle):
    """Neither reader grows beyond what it needs for the whole bundle, here by far under 1 GB."""
    damage(bundle)
    write_sha256sums(bundle)
    code = (
        "import sys, resource, contextlib, streaming\n"
        "from export.validate import validate_bundle\n"
        "with contextlib.suppress(streaming.InputError):\n"
        "    streaming.open_bundle(sys.argv[1]); print('opened')\n"
        "validate_bundle(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    limit = (12 << 30, 12 << 30)  # 4 TB of address space would be refused too
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(bundle)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # a fork's peak begins there
    assert int(done.stdout) < max(400_000, before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(bundle):
    (bundle / "tokens.txt").unlink()
    os.mkfifo(bundle / "tokens.txt")
    with pytest.raises(InputError, match=r"tokens.txt: missing: copy"):
        streaming.open_bundle(bundle)
