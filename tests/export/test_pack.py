"""A packed bundle: small, the same bit by bit when unpacked, and hostile ones refused."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.cli import run_app
from export import packfile
from export.errors import ExportError
from export.pack import Zeros, find_cuts, list_zeros, name_pack, pack_bundle, unpack_bundle
from export.packfile import HEAD, MAGIC, decode, encode, split
from export.validate import validate_bundle
from streaming import open_bundle
from streaming.bundle import BundleInfo, read_bundle, write_sha256sums
from streaming.errors import InputError
from tests.streaming.tiny_bundle import build_bundle, make_speech

FILES = {"bundle.json", "README.md", "SHA256SUMS", "tokens.txt"}
INT8 = {f"{graph}.int8.onnx" for graph in ("encoder", "decoder", "joiner")}


def prune(path, share=0.9):
    """Zero the smallest int8 weights of a graph where they are."""
    model = onnx.load(path)
    for weight in model.graph.initializer:
        array = onnx.numpy_helper.to_array(weight).copy()
        if array.dtype == np.int8 and array.size > 1:
            array[np.abs(array.astype(int)) <= np.quantile(np.abs(array.astype(int)), share)] = 0
            weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(model, path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = build_bundle(tmp_path_factory.mktemp("pack") / "bundle")
    for name in INT8:
        prune(folder / name)
    write_sha256sums(folder)
    return folder


@pytest.fixture(scope="module")
def pack(bundle):
    pack_bundle(bundle, name_pack(bundle))
    return name_pack(bundle)


def compress(content):
    return zstandard.ZstdCompressor().compress(content)


def forge(index, skeleton=b"", masks=b"", values=b"", version=1):
    """A pack of any parts; `index` as bytes or as what becomes JSON."""
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    frames = [compress(part) for part in (text, skeleton, masks, values)]
    return HEAD.pack(MAGIC, version, *map(len, frames)) + b"".join(frames)


def slow_decode(content):
    """The format as packfile.py describes it, bit by bit."""
    sizes = struct.unpack("<4I", content[12:28])
    start, parts = 28, []
    for size in sizes:
        parts.append(zstandard.ZstdDecompressor().decompress(content[start : start + size]))
        start += size
    skeleton, masks, values = map(list, parts[1:])
    files = {}
    for row in json.loads(parts[0])["files"]:
        data = []
        for skip, count, width in row["cuts"]:
            data += [skeleton.pop(0) for _ in range(skip)]
            octets = [masks.pop(0) for _ in range(-(-count // 8))]
            bits = [octets[i // 8] >> (7 - i % 8) & 1 for i in range(count)]
            kept = [[values.pop(0) for _ in range(sum(bits))] for _ in range(width)]
            whole = iter(zip(*kept, strict=True))
            for bit in bits:
                data += next(whole) if bit else [0] * width
        data += [skeleton.pop(0) for _ in range(row["bytes"] - len(data))]
        files[row["name"]] = bytes(data)
    assert not skeleton + masks + values
    return files


def test_small_example():
    """Four values of two bytes between 7 and 9: 0, 0x0201, 0, 0x0300."""
    data = bytes([7, 0, 0, 1, 2, 0, 0, 0, 3, 9])
    content = encode({"a": data}, {"a": [(1, 4, 2)]})
    parts = [zstandard.ZstdDecompressor().decompress(frame) for frame in split(content)]
    assert parts == [
        b'{"files":[{"name":"a","bytes":10,"cuts":[[1,4,2]]}]}',
        bytes([7, 9]),
        bytes([0b01010000]),
        bytes([1, 0, 2, 3]),
    ]
    assert slow_decode(content) == decode(content) == {"a": data}


@st.composite
def cut_files(draw):
    files, cuts = {}, {}
    for name in draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=3)):
        data, rows = b"", []
        for _ in range(draw(st.integers(0, 3))):
            skip, count, width = (draw(st.integers(0, high)) for high in (5, 20, 7))
            data += draw(st.binary(min_size=skip, max_size=skip))
            octet = st.sampled_from([0, 0, 0, 5, 255])
            size = count * (width + 1)
            data += bytes(draw(st.lists(octet, min_size=size, max_size=size)))
            rows.append((skip, count, width + 1))
        files[name] = data + draw(st.binary(max_size=5))
        cuts[name] = rows
    return files, cuts


@settings(deadline=None, max_examples=40)
@given(cut_files())
def test_any_files_come_back(case):
    content = encode(*case)
    assert decode(content) == slow_decode(content) == case[0]


def test_the_default_precision_comes_back_bit_by_bit(bundle, pack, tmp_path):
    info = unpack_bundle(pack, tmp_path / "new" / "bundle")
    found = {path.name for path in info.folder.iterdir()}
    assert found == FILES | INT8
    for name in INT8 | {"tokens.txt"}:
        assert (info.folder / name).read_bytes() == (bundle / name).read_bytes()
    assert set(info.files) == {"int8"}
    assert info == read_bundle(info.folder)
    assert {**info.to_json(), "files": 0} == {**read_bundle(bundle).to_json(), "files": 0}
    assert validate_bundle(info.folder) == []
    card = (info.folder / "README.md").read_text()
    assert "encoder.int8.onnx" in card
    assert "fp32, together" not in card


def test_it_hears_the_same(tmp_path):
    talkative = build_bundle(tmp_path / "talkative")
    pack_bundle(talkative, tmp_path / "x.pack")
    unpack_bundle(tmp_path / "x.pack", tmp_path / "bundle")
    speech = make_speech(32000)
    texts = []
    for folder in (talkative, tmp_path / "bundle"):
        recognizer = open_bundle(folder)
        stream = recognizer.create_stream()
        stream.accept(speech)
        texts.append(stream.finish())
    assert texts[0] == texts[1] != ""


def test_zeros_are_cheap():
    """A bell of int8 weights, 90 % of them zero: 4.7 bits for each that is left by its mask, and
    less than 7 for its value."""
    weights = np.random.default_rng(0).normal(0, 40, 200_000).clip(-127, 127).astype(np.int8)
    weights[np.abs(weights.astype(int)) < np.quantile(np.abs(weights.astype(int)), 0.9)] = 0
    data = weights.tobytes()
    packed = len(encode({"a": data}, {"a": [(0, len(data), 1)]}))
    plain = len(zstandard.ZstdCompressor(level=19).compress(data))
    assert packed < np.count_nonzero(weights) * (4.7 + 7) / 8
    assert packed < 0.85 * plain < 0.85 * len(zlib.compress(data, 9))


def test_weights_of_a_graph_are_cut_out(bundle):
    path = bundle / "encoder.int8.onnx"
    data = path.read_bytes()
    pieces, end = [], 0
    for skip, count, width in find_cuts(data):
        end += skip + count * width
        pieces.append((data[end - count * width : end], width))
    weights = [(w.raw_data, w.data_type) for w in onnx.load(path).graph.initializer]
    width = {onnx.TensorProto.INT8: 1, onnx.TensorProto.FLOAT: 4, onnx.TensorProto.INT64: 8}
    assert pieces == [(raw, width[kind]) for raw, kind in weights if len(raw) >= 64]
    assert {width for _, width in pieces} == {1, 4}


def test_same_bundle_same_bytes(bundle, pack, tmp_path):
    size = pack_bundle(bundle, tmp_path / "again.pack")
    assert (tmp_path / "again.pack").read_bytes() == pack.read_bytes()
    assert size == pack.stat().st_size


def test_packing_an_unpacked_bundle_gives_the_same_pack(pack, tmp_path):
    unpack_bundle(pack, tmp_path / "bundle")
    pack_bundle(tmp_path / "bundle", tmp_path / "second.pack")
    assert (tmp_path / "second.pack").read_bytes() == pack.read_bytes()


def test_unpacking_needs_neither_onnx_nor_torch(pack, tmp_path):
    script = (
        "import sys; sys.modules |= dict.fromkeys(['onnx', 'torch', 'pydantic', 'safetensors']);"
        "from export.pack import unpack_bundle; unpack_bundle(*sys.argv[1:])"
    )
    target = tmp_path / "bundle"
    subprocess.run([sys.executable, "-c", script, pack, target], check=True, timeout=60)
    assert read_bundle(target).default_precision == "int8"


def test_nothing_is_overwritten_and_nothing_left_behind(bundle, pack, tmp_path):
    (tmp_path / "there.pack").write_bytes(b"mine")
    with pytest.raises(ExportError, match="exists already"):
        pack_bundle(bundle, tmp_path / "there.pack")
    assert (tmp_path / "there.pack").read_bytes() == b"mine"
    (tmp_path / "full").mkdir()
    with pytest.raises(ExportError, match="exists already"):
        unpack_bundle(pack, tmp_path / "full")
    (tmp_path / "cut.pack").write_bytes(pack.read_bytes()[:-3])
    with pytest.raises(ExportError, match="cut short"):
        unpack_bundle(tmp_path / "cut.pack", tmp_path / "new")
    for call in (
        lambda: pack_bundle(bundle, tmp_path / "there.pack" / "x.pack"),
        lambda: unpack_bundle(pack, tmp_path / "there.pack" / "x"),
    ):
        with pytest.raises(ExportError, match="cannot be written"):
            call()
    assert {path.name for path in tmp_path.iterdir()} == {"there.pack", "full", "cut.pack"}


def test_a_damaged_bundle_is_not_packed(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "joiner.int8.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="does not match SHA256SUMS"):
        pack_bundle(tmp_path / "bundle", tmp_path / "x.pack")
    assert not (tmp_path / "x.pack").exists()


@settings(deadline=None, max_examples=60)
@given(share=st.floats(0, 1), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_found_or_does_nothing(pack, tmp_path_factory, share, bit, cut):
    content = bytearray(pack.read_bytes())
    place = min(int(share * len(content)), len(content) - 1)
    if cut:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    folder = tmp_path_factory.mktemp("damage")
    (folder / "bad.pack").write_bytes(content)
    try:
        info = unpack_bundle(folder / "bad.pack", folder / "bundle")
    except ExportError as error:
        assert str(folder / "bad.pack") in str(error)
        assert "\n" not in str(error)
        assert [path.name for path in folder.iterdir()] == ["bad.pack"]
    else:
        names = {path.name for path in info.folder.iterdir()}
        assert {name: (info.folder / name).read_bytes() for name in names} == decode(
            pack.read_bytes()
        )


def row(name="a", size=8, cuts=()):
    return {"name": name, "bytes": size, "cuts": list(cuts)}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row()], "there twice"),
        ([row("tokens.txt"), row("Tokens.txt")], "there twice"),
        ([row("../a")], "rename the file"),
        ([row("/etc/passwd")], "rename the file"),
        ([row("a\\b")], "rename the file"),
        ([row("..")], "rename the file"),
        ([row("")], "rename the file"),
        ([row("a\n")], "rename the file"),
        ([row(7)], "rename the file"),
        ([row("a" * 101)], "rename the file"),
        ([row(size=-1)], "index is damaged"),
        ([row(size=True)], "index is damaged"),
        ([row(size=1e3)], "index is damaged"),
        ([row(size=1 << 31)], "index is damaged"),
        ([row("a", 1 << 29), row("b", 1 << 29), row("c", 1)], "more than 1024 MiB"),
        ([row(str(number), 0) for number in range(65)], "more than 64 files"),
        ([row(cuts=[[0, 9, 1]])], "a cut leaves its file"),
        ([row(cuts=[[0, 5, 1], [0, 4, 1]])], "a cut leaves its file"),
        ([row(cuts=[[0, 6, 1], [-4, 6, 1]])], "a cut is damaged"),  # they would overlap
        ([row(cuts=[[0, 1, 0]])], "a cut is damaged"),
        ([row(cuts=[[0, 0, 9]])], "a cut is damaged"),
        ([row(cuts=[[0, 1]])], "a cut is damaged"),
        ([row(cuts=[[0, 1.0, 1]])], "a cut is damaged"),
        ([row(cuts=["abc"])], "a cut is damaged"),
        ([row(cuts="abc")], "a cut is damaged"),
        ([{"name": "a", "bytes": 8}], "index is damaged"),
        (["a"], "index is damaged"),
        ("a", "index is damaged"),
    ],
)
def test_hostile_index(rows, message):
    with pytest.raises(ExportError, match=message):
        decode(forge({"files": rows}, b"12345678"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a file of compress pack"),
        (b"PK\x03\x04" * 20, "not a file of compress pack"),
        (MAGIC + b"\1\0", "cut short"),
        (forge({"files": []}, version=2), "pack version 2, this program reads 1: install"),
        (forge({"files": []}) + b"x", "longer than it says"),
        (forge(b"[" * 100_000), "index is damaged"),
        (forge(b"\xff"), "index is damaged"),
        (forge(b"9" * 5000), "index is damaged"),
        (forge({"files": [], "more": 1}), "index is damaged"),
        (forge({"files": [row()]}, b"1234567"), "not the size it should"),
        (forge({"files": [row()]}, b"123456789"), "not the size it should"),
        (forge({"files": [row(cuts=[[0, 8, 1]])]}, b"", b""), "not the size it should"),
        (forge({"files": [row(cuts=[[0, 8, 1]])]}, b"", b"\3", b"1"), "fewer values"),
        (forge({"files": [row(cuts=[[0, 8, 1]])]}, b"", b"\3", b"123"), "more values"),
        (forge({"files": [row(cuts=[[0, 8, 1]])]}, b"", b"\3", bytes(9)), "not the size"),
        (HEAD.pack(MAGIC, 1, 4, 0, 0, 0) + b"abcd", "cannot be decompressed"),
    ],
)
def test_hostile_parts(content, message):
    with pytest.raises(ExportError, match=message):
        decode(content)


def pack_frames(*frames):
    return HEAD.pack(MAGIC, 1, *map(len, frames)) + b"".join(frames)


def test_bombs_are_not_set_off(monkeypatch):
    """A gibibyte of zeros is 33 kB of zstd: it must be refused by its stated size."""
    bomb = compress(bytes(packfile.MAX_INDEX_BYTES + 1))
    index = compress(b'{"files":[]}')
    unstated = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100))
    real = zstandard.ZstdDecompressor
    monkeypatch.setattr(zstandard, "ZstdDecompressor", lambda: Careful(real()))
    for frames in ([bomb, b"", b"", b""], [index, bomb, b"", b""], [index, unstated, b"", b""]):
        with pytest.raises(ExportError, match="not the size"):
            decode(pack_frames(*frames))


def test_a_frame_larger_than_it_states():
    lying = bytearray(compress(bytes(200)))
    lying[5] = 12  # the byte of the frame's header that states its content's size
    assert zstandard.frame_content_size(bytes(lying)) == 12
    with pytest.raises(ExportError, match="cannot be decompressed"):
        decode(pack_frames(bytes(lying), b"", b"", b""))


class Careful:
    """A decompressor for small frames only."""

    def __init__(self, real):
        self.real = real

    def decompress(self, frame, **settings):
        assert zstandard.frame_content_size(frame) < 100
        return self.real.decompress(frame, **settings)


def test_packs_that_hold_no_bundle(pack, tmp_path):
    files = decode(pack.read_bytes())

    def unpack(changed):
        (tmp_path / "x.pack").write_bytes(encode(changed, {}))
        with pytest.raises(ExportError, match=r"x\.pack") as caught:
            unpack_bundle(tmp_path / "x.pack", tmp_path / "bundle")
        assert [path.name for path in tmp_path.iterdir()] == ["x.pack"]
        return str(caught.value)

    assert "do not match their SHA256SUMS" in unpack({})
    assert "do not match" in unpack({**files, "tokens.txt": files["tokens.txt"] + b"\n"})
    assert "do not match" in unpack({**files, "more.txt": b""})
    assert "do not match" in unpack({n: d for n, d in files.items() if n != "SHA256SUMS"})
    place = tmp_path / "wrong"
    place.mkdir()
    (place / "bundle.json").write_text("{}")
    write_sha256sums(place)
    wrong = {path.name: path.read_bytes() for path in place.iterdir()}
    shutil.rmtree(place)
    assert "x.pack/bundle.json: schema None" in unpack(wrong)


def test_not_a_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing.pack"):
        with pytest.raises(ExportError, match="give a file of compress pack"):
            unpack_bundle(path, tmp_path / "new")


def test_zeros_that_did_not_become_speed():
    layers = [
        {"name": "a", "shape": [10, 20], "sparsity": 0.9, "bits": 8},
        {"name": "narrow", "shape": [3, 4], "sparsity": 0.0, "bits": 8},
        {"name": "block", "shape": [64, 20], "sparsity": 0.9, "bits": 8, "block_rows": 64},
        {"name": "b", "shape": [30, 10], "sparsity": 0.8, "bits": 32},
        {"name": "told", "shape": [], "bits": 32},
    ]
    info = BundleInfo("x", 32, 40, [1, 1], {}, {}, layers=layers)
    assert list_zeros(info) == [Zeros("b", 240, 300, 960), Zeros("a", 180, 200, 180)]


def test_commands(bundle, tmp_path, monkeypatch, capsys):
    shutil.copytree(bundle, tmp_path / "my.bundle")
    monkeypatch.chdir(tmp_path)
    assert run_app(["pack", "my.bundle"]) == 0
    assert "next: compress unpack my.bundle.pack" in capsys.readouterr().err
    assert run_app(["unpack", "my.bundle.pack", "--out", "again"]) == 0
    assert run_app(["unpack", "my.bundle.pack"]) == 2
    assert "my.bundle: exists already" in capsys.readouterr().err
    Path("my.bundle.pack").rename("plain")
    assert run_app(["unpack", "plain"]) == 2
    assert "does not end in .pack: name the folder with --out" in capsys.readouterr().err
    assert run_app(["pack", "."]) == 2
    assert read_bundle("again").name == "tiny"
