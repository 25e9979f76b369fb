"""The bundle: the folder a device gets, its schema, and reading it strictly.

    bundle/  encoder.onnx decoder.onnx joiner.onnx  (+ .int8.onnx)  tokens.txt  bpe.model
             bundle.json  README.md  SHA256SUMS

A graph may have another form (export/convert.py): encoder.ort, or its weights in encoder.onnx.data.
Reading checks the schema's version, then the hashes, then every value; streaming/session.py then
checks the tensors of the graphs against it. No path may leave the folder.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

from streaming.errors import BundleError, InputError
from streaming.external import SUFFIX, find_external
from streaming.features import FeatureSettings

SCHEMA = 1
INFO_FILE = "bundle.json"
SUMS_FILE = "SHA256SUMS"
TOKENS_FILE = "tokens.txt"
ORT_SUFFIX = ".ort"  # by it onnxruntime tells its own format from ONNX
GRAPHS = ("encoder", "decoder", "joiner")
TARGETS = ("sherpa_lstm", "sherpa_nemo")
MAX_INFO_BYTES = 16 << 20
MAX_SUMS_BYTES = 1 << 20
MAX_TOKENS_BYTES = 16 << 20
MAX_GRAPH_BYTES = 2 << 30  # a protobuf cannot be larger

# Smallest and largest value that makes sense; a wild number would otherwise allocate wild memory.
LIMITS = {
    "chunk_frames": (4, 4096),
    "subsampling": (1, 16),
    "vocab_size": (2, 1 << 17),
    "blank_id": (0, 1 << 17),
    "context_size": (1, 16),
    "max_symbols_per_frame": (1, 100),
    "tail_frames": (0, 4096),
}
MAX_STATE_SIZE = 1 << 26


class TensorInfo(TypedDict):
    """One input or output of a graph, in the graph's order; a free axis is called "N"."""

    name: str
    shape: list[int | str]
    dtype: str


Tensors = dict[str, dict[str, list[TensorInfo]]]


@dataclass(frozen=True)
class BundleInfo:
    """What bundle.json says, plus the folder it was read from (not written).

    files: precision -> graph -> file name.   tensors: graph -> "inputs" | "outputs" -> tensors.
    state_sizes: S0 and S1, float32 values a stream of the encoder's two states; zero is empty.
    tail_frames: frames of silence after which the last word is surely out.
    """

    name: str
    chunk_frames: int
    vocab_size: int
    state_sizes: list[int]
    files: dict[str, dict[str, str]]
    tensors: Tensors
    schema: int = SCHEMA
    target: str = "sherpa_lstm"
    features: FeatureSettings = field(default_factory=FeatureSettings)
    subsampling: int = 4
    blank_id: int = 0
    context_size: int = 2
    max_symbols_per_frame: int = 1
    tail_frames: int = 32
    default_precision: str = "int8"
    layers: list[dict[str, Any]] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)

    @property
    def frame_seconds(self) -> float:
        """Seconds between two encoder frames."""
        return self.subsampling * self.features.frame_shift_ms / 1000

    @property
    def predictor_shape(self) -> tuple[int, int] | None:
        """Layers and width of the predictor's h and c (layers, N, width); None without a state."""
        inputs = self.tensors["decoder"]["inputs"]
        if len(inputs) != 4 or len(inputs[2]["shape"]) != 3:
            return None
        layers, _, width = inputs[2]["shape"]
        return (layers, width) if isinstance(layers, int) and isinstance(width, int) else None

    def graph_path(self, graph: str, precision: str) -> Path:
        assert self.folder is not None, "graph_path() needs a bundle that was read from a folder"
        if precision not in self.files:
            have = ", ".join(sorted(self.files))
            raise BundleError(f"{self.folder}: no precision {precision!r}: choose one of {have}")
        return self.folder / self.files[precision][graph]

    def list_files(self, precision: str) -> list[str]:
        """Names of the graphs, each followed by that of the weights it keeps outside."""
        graphs = [self.graph_path(graph, precision) for graph in GRAPHS]
        both = [(path, path.with_name(path.name + SUFFIX)) for path in graphs]
        return [path.name for pair in both for path in pair if path in graphs or path.is_file()]

    def to_json(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "folder"}
        return values | {"features": self.features.to_json()}


def write_bundle_json(info: BundleInfo, path: Path | str) -> None:
    """Writes bundle.json; `path` is the file, or the folder it goes into."""
    path = Path(path)
    values = info.to_json()
    _build_info(values, path)
    if path.is_dir():
        path = path / INFO_FILE
    path.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_sha256sums(folder: Path | str) -> None:
    """Writes SHA256SUMS over every file of the folder, in the format of sha256sum."""
    folder = Path(folder)
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != SUMS_FILE)
    lines = [f"{hash_file(folder / name)}  {name}\n" for name in names]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def read_bundle(path: Path | str) -> BundleInfo:
    """Reads and checks a bundle folder; raises BundleError naming the file and the fix."""
    try:
        return _read_bundle(Path(path))
    except OSError as error:
        raise BundleError(
            f"{error.filename}: {error.strerror}: check the path and its permissions"
        ) from None


def _read_bundle(folder: Path) -> BundleInfo:
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such bundle folder: give the folder with {INFO_FILE}")
    if not (folder / INFO_FILE).is_file():
        raise BundleError(f"{folder / INFO_FILE}: missing: give a bundle made by compress export")
    sums = read_sums(folder)
    values = _read_json(folder / INFO_FILE)
    _check_schema(values, folder / INFO_FILE)
    _check_hashes(folder, sums)
    info = _build_info(values, folder / INFO_FILE, folder)
    for name in (INFO_FILE, TOKENS_FILE, *_list_graph_files(info, folder)):
        if name not in sums:
            raise BundleError(f"{folder / SUMS_FILE}: no hash for {name}: export the bundle again")
    return info


def _list_graph_files(info: BundleInfo, folder: Path) -> Iterator[str]:
    """The files of every graph; raises BundleError for weights in a file that is not its own."""
    for name in (name for graphs in info.files.values() for name in graphs.values()):
        yield name
        path = folder / name
        data = find_external(path) if path.is_file() and path.suffix != ORT_SUFFIX else None
        if data:
            yield data


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    _check_size(path, MAX_INFO_BYTES)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise BundleError(f"{path}: not valid JSON: copy or export the bundle again") from None
    if not isinstance(values, dict):
        raise BundleError(f"{path}: not a JSON object: copy or export the bundle again")
    return values


def read_sums(folder: Path) -> dict[str, str]:
    """file name -> SHA-256 in hex, from SHA256SUMS; raises BundleError for what it may not hold."""
    path = folder / SUMS_FILE
    if not path.is_file():
        raise BundleError(f"{path}: missing: copy the bundle again, with all its files")
    _check_name(SUMS_FILE, folder, path)
    _check_size(path, MAX_SUMS_BYTES)
    sums = {}
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise BundleError(f"{path}:{number}: not 'HASH  NAME': copy the bundle again")
        _check_name(name, folder, path)
        sums[name] = digest
    return sums


def _check_name(name: object, folder: Path, where: Path) -> None:
    """A file name must be plain and, links followed, lie in the folder."""
    plain = isinstance(name, str) and name not in ("", ".", "..") and name.isprintable()
    plain = plain and name == PurePosixPath(str(name)).name and "\\" not in str(name)
    if not plain or not (folder / str(name)).resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{where}: path {name!r} leaves the bundle: use a bundle you trust")


def _check_hashes(folder: Path, sums: dict[str, str]) -> None:
    for name, digest in sums.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{path}: missing: copy the bundle again, with all its files")
        _check_size(path, MAX_TOKENS_BYTES if name == TOKENS_FILE else MAX_GRAPH_BYTES)
        if hash_file(path) != digest:
            raise BundleError(f"{path}: does not match {SUMS_FILE}: copy the bundle again")


def _check_size(path: Path, max_bytes: int) -> None:
    if path.stat().st_size > max_bytes:
        raise BundleError(f"{path}: larger than {max_bytes >> 20} MiB: export the bundle again")


def _check_schema(values: dict[str, Any], where: Path) -> None:
    schema = values.get("schema")
    if schema != SCHEMA:
        raise BundleError(
            f"{where}: schema {repr(schema)[:40]}, this version reads {SCHEMA}: export the bundle "
            "again or install the version that wrote it"
        )


def _build_info(values: dict[str, Any], where: Path, folder: Path | None = None) -> BundleInfo:
    """BundleInfo of the JSON values; every key present, known and of the right type."""
    _check_schema(values, where)
    known = {f.name for f in fields(BundleInfo)} - {"folder"}
    if set(values) != known:
        wrong = " ".join(", ".join(sorted(set(values) ^ known)).split())[:200]
        raise BundleError(f"{where}: missing or unknown: {wrong}: export the bundle again")
    _check_values(values, where)
    for graphs in values["files"].values():
        for name in graphs.values():
            _check_name(name, folder or where.parent, where)
    try:
        features = FeatureSettings.from_json(values["features"])
    except InputError as error:
        raise BundleError(f"{where}: {error}: export the bundle again") from None
    return BundleInfo(**(values | {"features": features, "folder": folder}))


def _check_values(values: dict[str, Any], where: Path) -> None:
    def check(right: bool, what: str) -> None:
        if not right:
            raise BundleError(f"{where}: {what[:200]}: export the bundle again")

    for key, (low, high) in LIMITS.items():
        right = type(values[key]) is int and low <= values[key] <= high
        check(right, f"{key} must be an integer in {low}..{high}, got {values[key]!r}")
    check(isinstance(values["name"], str), "name must be a text")
    check(values["target"] in TARGETS, f"target must be one of {', '.join(TARGETS)}")
    blank = values["vocab_size"] - 1 if values["target"] == "sherpa_nemo" else 0
    check(values["blank_id"] == blank, f"blank_id must be {blank}, where sherpa-onnx has it")
    check(
        values["chunk_frames"] % values["subsampling"] == 0, "chunk is no multiple of subsampling"
    )
    sizes = values["state_sizes"]
    right = isinstance(sizes, list) and len(sizes) == 2
    right = right and all(type(s) is int and 1 <= s <= MAX_STATE_SIZE for s in sizes)
    check(right, "state_sizes must be two positive integers")
    for key in ("features", "files", "tensors", "measured", "provenance"):
        check(isinstance(values[key], dict), f"{key} must be an object")
    check(isinstance(values["layers"], list), "layers must be a list")
    files = values["files"]
    right = bool(files) and all(
        isinstance(g, dict) and set(g) == set(GRAPHS) for g in files.values()
    )
    check(right, f"files must name {', '.join(GRAPHS)} for each precision")
    check(values["default_precision"] in list(files), "default_precision is not among files")
    check(_is_tensors(values["tensors"]), "tensors must list each graph's inputs and outputs")


def _is_tensors(tensors: dict[str, Any]) -> bool:
    return set(tensors) == set(GRAPHS) and all(
        isinstance(sides, dict)
        and set(sides) == {"inputs", "outputs"}
        and all(isinstance(s, list) and all(map(_is_tensor, s)) for s in sides.values())
        for sides in tensors.values()
    )


def _is_tensor(tensor: Any) -> bool:
    return (
        isinstance(tensor, dict)
        and set(tensor) == {"name", "shape", "dtype"}
        and isinstance(tensor["name"], str)
        and isinstance(tensor["dtype"], str)
        and isinstance(tensor["shape"], list)
        and all(d == "N" or (type(d) is int and d > 0) for d in tensor["shape"])
    )
