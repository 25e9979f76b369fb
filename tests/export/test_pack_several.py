"""Several bundles in one pack: what they share once, the same folders again, or a refusal."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from export.errors import ExportError
from export.links import link_same_files
from export.pack import pack_bundle
from export.pack_several import (
    INDEX_FILE,
    join_bundles,
    pack_bundles,
    split_bundles,
    unpack_bundles,
)
from export.packfile import decode, encode
from streaming.bundle import read_bundle, write_bundle_json, write_sha256sums
from tests.streaming.tiny_bundle import build_bundle

OWN = {"bundle.json", "README.md", "SHA256SUMS", "encoder.int8.onnx"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two bundles whose encoders differ in their last bytes, and whose packs would be alike."""
    place = tmp_path_factory.mktemp("several") / "bundles"
    place.mkdir()
    first = build_bundle(place / "80ms")
    second = place / "160ms"
    shutil.copytree(first, second)
    write_bundle_json(read_bundle(second), second)
    info = json.loads((second / "bundle.json").read_text())
    (second / "bundle.json").write_text(json.dumps(info | {"name": "other"}))
    graph = second / "encoder.int8.onnx"
    graph.write_bytes(graph.read_bytes() + b"\x32\x01x")  # a doc_string
    write_sha256sums(second)
    return place


@pytest.fixture(scope="module")
def pack(folder):
    pack_bundles(folder, folder.with_name("both.pack"))
    return folder.with_name("both.pack")


def refuse(files, message, tmp_path):
    (tmp_path / "bad.pack").write_bytes(encode(files, {}))
    with pytest.raises(ExportError, match=message) as caught:
        unpack_bundles(tmp_path / "bad.pack", tmp_path / "new")
    assert "bad.pack" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pack"]


def test_small_example():
    joined = join_bundles({"a": {"x": b"1"}, "b": {"x": b"1", "y": b"2"}})
    assert joined == {
        INDEX_FILE: b'{"a":{"x":"0-x"},"b":{"x":"0-x","y":"1-y"}}',
        "0-x": b"1",
        "1-y": b"2",
    }
    assert split_bundles(joined) == {"a": {"x": b"1"}, "b": {"x": b"1", "y": b"2"}}


def test_each_comes_back_as_its_own_pack_would(folder, pack, tmp_path):
    infos = unpack_bundles(pack, tmp_path / "new")
    assert [info.name for info in infos] == ["other", "tiny"]
    for name in ("80ms", "160ms"):
        pack_bundle(folder / name, tmp_path / f"{name}.pack")
        alone = decode((tmp_path / f"{name}.pack").read_bytes())
        found = {path.name: path.read_bytes() for path in (tmp_path / "new" / name).iterdir()}
        assert found == alone
        for file in (tmp_path / "new" / name).iterdir():
            assert file.stat().st_nlink == (1 if file.name in OWN else 2), file.name


def test_what_is_shared_is_stored_once(folder, pack, tmp_path):
    alone = pack_bundle(folder / "80ms", tmp_path / "one.pack")
    assert pack.stat().st_size < 1.15 * alone + 400
    names = decode(pack.read_bytes()).keys()
    assert {name for name in names if name.startswith("1-")} == {f"1-{name}" for name in OWN}


def test_one_bundle_is_packed_as_ever(folder, tmp_path):
    pack_bundles(folder / "80ms", tmp_path / "one.pack")
    pack_bundle(folder / "80ms", tmp_path / "same.pack")
    assert (tmp_path / "one.pack").read_bytes() == (tmp_path / "same.pack").read_bytes()
    (info,) = unpack_bundles(tmp_path / "one.pack", tmp_path / "new")
    assert info == read_bundle(tmp_path / "new")


def test_a_folder_with_anything_else_is_no_folder_of_bundles(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "bundles")
    (tmp_path / "bundles" / "notes.txt").write_text("mine")
    for wrong in (tmp_path / "bundles", tmp_path / "missing"):
        with pytest.raises(ValueError, match=r"bundle\.json"):
            pack_bundles(wrong, tmp_path / "x.pack")
    assert not (tmp_path / "x.pack").exists()


def test_nothing_is_overwritten(folder, pack, tmp_path):
    (tmp_path / "there.pack").write_bytes(b"mine")
    with pytest.raises(ExportError, match="exists already"):
        pack_bundles(folder, tmp_path / "there.pack")
    assert (tmp_path / "there.pack").read_bytes() == b"mine"
    with pytest.raises(ExportError, match="exists already"):
        unpack_bundles(pack, tmp_path)


def index(rows, **files):
    return {INDEX_FILE: rows if isinstance(rows, bytes) else json.dumps(rows).encode(), **files}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (index(b"["), "list of bundles is damaged"),
        (index(b"[" * 100_000), "list of bundles is damaged"),
        (index(b"\xff"), "list of bundles is damaged"),
        (index({}), "list of bundles is damaged"),
        (index([]), "list of bundles is damaged"),
        (index({"a": ["x"]}), "list of bundles is damaged"),
        (index({"../a": {"x": "x"}}, x=b""), "rename the file"),
        (index({"/etc": {"x": "x"}}, x=b""), "rename the file"),
        (index({"": {"x": "x"}}, x=b""), "rename the file"),
        (index({"..": {"x": "x"}}, x=b""), "rename the file"),
        (index({"a": {"../x": "x"}}, x=b""), "rename the file"),
        (index({"a": {"b/x": "x"}}, x=b""), "rename the file"),
        (index({"a": {}, "A": {"x": "x"}}, x=b""), "there twice"),
        (index({"a": {"x": "x", "X": "x"}}, x=b""), "there twice"),
        (index({"a": {str(n): "x" for n in range(65)}}, x=b""), "more than 64 files"),
        (index({str(n): {"x": "x"} for n in range(65)}, x=b""), "more than 64 files"),
        (index({"a": {"x": "y"}}, x=b""), "not that of its files"),
        (index({"a": {"x": 3}}, x=b""), "not that of its files"),
        (index({"a": {"x": ["x"], "y": "x"}}, x=b""), "not that of its files"),
        (index({"a": {"x": "x"}}, x=b"", y=b""), "not that of its files"),
        (index({"a": {"x": INDEX_FILE}}), "not that of its files"),
        (index({"a": {"tokens.txt": "x"}}, x=b""), "do not match their SHA256SUMS"),
        ({"tokens.txt": b""}, "do not match their SHA256SUMS"),
    ],
)
def test_hostile_lists(files, message, tmp_path):
    refuse(files, message, tmp_path)


def test_a_small_pack_that_would_fill_the_disk(tmp_path):
    """64 folders of 64 times the same 1 MiB are 4 GiB."""
    rows = {str(n): {str(m): "x" for m in range(64)} for n in range(64)}
    refuse(index(rows, x=bytes(1 << 20)), "more than 1024 MiB: pack fewer", tmp_path)


def test_damage_to_one_bundle_refuses_all(pack, tmp_path):
    files = decode(pack.read_bytes())
    refuse({**files, "1-README.md": b"# another\n"}, "do not match their SHA256SUMS", tmp_path)


def test_links_leave_every_bundle_whole(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "bundles")
    places = [tmp_path / "bundles" / name for name in ("80ms", "160ms")]
    before = [{path.name: path.read_bytes() for path in place.iterdir()} for place in places]
    link_same_files(places)
    link_same_files(places)  # again changes nothing
    after = [{path.name: path.read_bytes() for path in place.iterdir()} for place in places]
    assert before == after
    assert (places[0] / "tokens.txt").samefile(places[1] / "tokens.txt")
    assert not (places[0] / "encoder.int8.onnx").samefile(places[1] / "encoder.int8.onnx")
    for place in places:
        assert (place / "bundle.json").stat().st_nlink == 1
        read_bundle(place)


def test_without_hard_links_the_copies_stay(folder, tmp_path, monkeypatch):
    def refuse_link(self, target):
        raise OSError(1, "Operation not permitted")

    shutil.copytree(folder, tmp_path / "bundles")
    places = [tmp_path / "bundles" / name for name in ("80ms", "160ms")]
    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse_link)
    link_same_files(places)
    assert not (places[0] / "tokens.txt").samefile(places[1] / "tokens.txt")
    assert np.all([read_bundle(place).chunk_frames for place in places])
    assert not list((tmp_path / "bundles").rglob(".*.part"))
