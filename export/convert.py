"""`compress convert`: the graphs of a bundle in another form, for runtimes that want one.

    ort        onnxruntime's own format, already optimised: the only one that minimal builds of it
               load. Beside the graphs lies the list of operators and types that such a build needs.
    external   .onnx whose weights lie in a file beside it, .onnx.data: the graph can be looked at
               and changed alone, and onnxruntime maps the weights instead of copying them.

Whatever is in the bundle besides stays as it is, so streaming/ and sherpa-onnx open both.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnxruntime
from onnx.external_data_helper import set_external_data

from export.bundle import complete_bundle
from export.errors import ExportError
from export.ort_file import CONFIG_FILE, write_config
from export.weights import list_tensors
from export.whole_folder import check_free, whole_folder
from streaming.bundle import INFO_FILE, ORT_SUFFIX, SUMS_FILE, BundleInfo, read_bundle, read_sums
from streaming.external import SUFFIX, find_external

# Smaller weights are mostly shapes, which onnxruntime wants to know while it loads the graph.
MIN_EXTERNAL_BYTES = 1024
ALIGNMENT = 64  # of a weight in its file: vector kernels read it where it is mapped
REWRITTEN = {INFO_FILE, SUMS_FILE, "README.md"}


def convert_bundle(
    source: Path | str, form: str, folder: Path | str, precision: str | None = None
) -> BundleInfo:
    """Writes the bundle `source` as `folder` with its graphs in `form`; returns it as read back.

    precision: of info.files, the only one to write; None writes all.
    Raises ExportError: no such form, no .onnx bundle, `folder` exists; BundleError: damaged.
    """
    folder = Path(folder)
    if form not in FORMS:
        raise ExportError(f"no form {form!r}: convert to {' or '.join(FORMS)}")
    check_free(folder)
    info = whole = read_bundle(source)
    if precision is not None:
        info.graph_path("encoder", precision)  # raises for one that is not there
        files = {precision: info.files[precision]}
        info = dataclasses.replace(info, files=files, default_precision=precision)
    paths = [info.graph_path(g, p) for p, graphs in info.files.items() for g in graphs]
    check_convertible(paths)
    with whole_folder(folder) as part:
        names = {path.name: FORMS[form](path, part).name for path in paths}
        if form == "ort":
            write_config([part / name for name in names.values()], part / CONFIG_FILE)
        for name in list_other_files(whole):
            shutil.copyfile(Path(source) / name, part / name)
        files = {p: {g: names[n] for g, n in graphs.items()} for p, graphs in info.files.items()}
        complete_bundle(dataclasses.replace(info, files=files, folder=part), part)
    return read_bundle(folder)


def check_convertible(paths: list[Path]) -> None:
    for path in paths:
        if path.suffix == ORT_SUFFIX or find_external(path):
            raise ExportError(f"{path}: converted already: give the bundle that it was made of")


def list_other_files(info: BundleInfo) -> Iterator[str]:
    """What a bundle holds besides graphs and what is written anew."""
    assert info.folder is not None
    graphs = {name for precision in info.files for name in info.list_files(precision)}
    yield from sorted({*read_sums(info.folder)} - graphs - REWRITTEN)


def write_ort(path: Path, folder: Path) -> Path:
    """encoder.onnx -> folder/encoder.ort, optimised for any processor.

    The optimisations are baked in ("Fixed"): the other style leaves some to the device, for
    providers that compile parts of a graph, and sherpa-onnx runs these graphs on the CPU alone.
    NchwcTransformer stays out: it lays convolutions out in blocks as wide as the vectors of this
    very processor, and any other would read them wrongly. Of what else depends on the processor
    nothing touches these graphs: those made for arm and for amd64 have the same nodes and weights.
    """
    target = folder / path.with_suffix(ORT_SUFFIX).name
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.log_severity_level = 3
    try:
        onnxruntime.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["NchwcTransformer"],
        )
    except Exception as error:  # onnxruntime's own types share no public base class
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"{path}: cannot be converted ({reason}): export it again") from None
    return target


def write_external(path: Path, folder: Path) -> Path:
    """encoder.onnx -> folder/encoder.onnx and its weights in folder/encoder.onnx.data."""
    model = onnx.load(path)
    target = folder / path.name
    with (folder / (path.name + SUFFIX)).open("wb") as file:
        for weight in list_tensors(model.graph):
            raw = weight.raw_data
            if len(raw) < MIN_EXTERNAL_BYTES:
                continue
            file.write(bytes(-file.tell() % ALIGNMENT))
            set_external_data(weight, path.name + SUFFIX, file.tell(), len(raw))
            weight.ClearField("raw_data")
            file.write(raw)
        empty = file.tell() == 0
    if empty:  # a graph of small weights has nothing to keep outside
        (folder / (path.name + SUFFIX)).unlink()
    target.write_bytes(model.SerializeToString(deterministic=True))
    return target


FORMS: dict[str, Callable[[Path, Path], Path]] = {"ort": write_ort, "external": write_external}
