import json
import os

import onnx
import pytest

import streaming
from streaming.bundle import (
    BundleInfo,
    hash_file,
    read_bundle,
    write_bundle_json,
    write_sha256sums,
)
from streaming.errors import BundleError, InputError
from streaming.session import MIN_BYTES_FOR_THREADS, count_threads


def edit_json(folder, **changes):
    """Changes bundle.json and hashes it again, as an attacker or another version would."""
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    write_sha256sums(folder)


def assert_refused(folder, *words):
    with pytest.raises(BundleError) as caught:
        streaming.open_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_reads_what_was_written(bundle, tmp_path, info):
    assert info.folder == bundle
    write_bundle_json(info, tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_bytes() == (bundle / "bundle.json").read_bytes()


def test_sums_are_those_of_sha256sum(bundle):
    lines = (bundle / "SHA256SUMS").read_text().splitlines()
    assert f"{hash_file(bundle / 'encoder.onnx')}  encoder.onnx" in lines
    assert len(lines) == 8


def test_both_precisions_open(bundle):
    assert streaming.open_bundle(bundle).session.precision == "int8"
    assert streaming.open_bundle(str(bundle), precision="fp32").session.precision == "fp32"
    with pytest.raises(InputError, match="choose one of fp32, int8"):
        streaming.open_bundle(bundle, precision="int4")
    with pytest.raises(InputError, match="num_threads"):
        streaming.open_bundle(bundle, num_threads=0)


def test_no_bundle(tmp_path):
    assert_refused(tmp_path / "nothing", "nothing", "give the folder")
    assert_refused(tmp_path, "bundle.json", "missing")


@pytest.mark.parametrize("name", ["encoder.onnx", "joiner.int8.onnx", "tokens.txt", "SHA256SUMS"])
def test_missing_file(copied_bundle, name):
    (copied_bundle / name).unlink()
    assert_refused(copied_bundle, name, "missing", "copy")


def test_truncated_file(copied_bundle):
    path = copied_bundle / "encoder.int8.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(copied_bundle, "encoder.int8.onnx", "SHA256SUMS", "copy")


def test_changed_byte(copied_bundle):
    path = copied_bundle / "tokens.txt"
    path.write_text(path.read_text().replace("▁a", "▁b"))
    assert_refused(copied_bundle, "tokens.txt", "SHA256SUMS", "copy")


def test_truncated_file_with_a_new_hash(copied_bundle):
    path = copied_bundle / "encoder.int8.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    write_sha256sums(copied_bundle)
    assert_refused(copied_bundle, "encoder.int8.onnx", "not an ONNX file", "copy or export")


@pytest.mark.parametrize(
    "name", ["../encoder.onnx", "/etc/passwd", "..", "a/b.onnx", "a\\b", "", "a\0", "\ud800"]
)
def test_path_out_of_the_folder(copied_bundle, name):
    files = json.loads((copied_bundle / "bundle.json").read_text())["files"]
    files["int8"]["encoder"] = name
    edit_json(copied_bundle, files=files)
    assert_refused(copied_bundle, "bundle.json", "leaves the bundle")


def test_sums_out_of_the_folder(copied_bundle):
    with (copied_bundle / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  ../secret\n")
    assert_refused(copied_bundle, "SHA256SUMS", "leaves the bundle")


def test_link_out_of_the_folder(copied_bundle, tmp_path):
    path = copied_bundle / "encoder.onnx"
    path.rename(tmp_path / "elsewhere.onnx")
    path.symlink_to(tmp_path / "elsewhere.onnx")
    assert_refused(copied_bundle, "encoder.onnx", "leaves the bundle")


def test_unhashed_file(copied_bundle):
    path = copied_bundle / "SHA256SUMS"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "decoder.onnx" not in line))
    assert_refused(copied_bundle, "SHA256SUMS", "decoder.onnx")


def test_other_schema(copied_bundle):
    edit_json(copied_bundle, schema=2)
    assert_refused(copied_bundle, "bundle.json", "schema 2", "reads 1", "export")


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100000])
def test_broken_json(copied_bundle, text):
    (copied_bundle / "bundle.json").write_text(text)
    write_sha256sums(copied_bundle)
    assert_refused(copied_bundle, "bundle.json", "JSON")


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_frames": 33},
        {"chunk_frames": "32"},
        {"chunk_frames": True},
        {"vocab_size": 10**12},
        {"vocab_size": 31},
        {"blank_id": 1},
        {"context_size": 3},
        {"state_sizes": [24]},
        {"state_sizes": [25, 1]},
        {"features": {"preset": "kaldi"}},
        {"target": "other"},
        {"default_precision": "fp16"},
        {"default_precision": []},
        {"files": {}},
        {"files": {"int8": {"encoder": "encoder.onnx"}}},
        {"files": {"int8": 1}},
        {"tensors": {}},
        {"tensors": {"encoder": {"inputs": [1], "outputs": []}}},
        {"extra": 1},
        {"layers": {}},
        {"name": 7},
    ],
)
def test_wrong_values(copied_bundle, changes):
    edit_json(copied_bundle, **changes)
    assert_refused(copied_bundle, "export the bundle again")


@pytest.mark.parametrize("graph", ["encoder", "decoder", "joiner"])
def test_renamed_tensor(copied_bundle, graph):
    path = copied_bundle / f"{graph}.int8.onnx"
    model = onnx.load(path)
    old = model.graph.output[0].name
    model.graph.output[0].name = "renamed"
    for node in model.graph.node:
        node.output[:] = ["renamed" if name == old else name for name in node.output]
    onnx.save(model, path)
    write_sha256sums(copied_bundle)
    assert_refused(copied_bundle, path.name, "renamed", old, "export")


def test_a_wrong_info_is_not_written(info, tmp_path):
    values = vars(info) | {"chunk_frames": 30}
    with pytest.raises(BundleError, match="chunk"):
        write_bundle_json(BundleInfo(**values), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(copied_bundle):
    (copied_bundle / "joiner.onnx").chmod(0)
    assert_refused(copied_bundle, "joiner.onnx", "permissions")


def test_extra_files_do_no_harm(copied_bundle):
    (copied_bundle / "notes.txt").write_text("mine")
    assert read_bundle(copied_bundle).name == "tiny"


def test_small_graphs_have_one_thread(bundle, tmp_path):
    small, large = bundle / "encoder.onnx", tmp_path / "encoder.onnx"
    assert count_threads(small, 4) == 1
    large.write_bytes(bytes(MIN_BYTES_FOR_THREADS))
    assert count_threads(large, 4) == 4
    large.write_bytes(b"graph")
    (tmp_path / "encoder.onnx.data").write_bytes(bytes(MIN_BYTES_FOR_THREADS))
    assert count_threads(large, 2) == 2, "weights outside count"
