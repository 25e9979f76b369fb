"""The forms of a bundle: bytes, loading time, memory, time of a chunk; and two fused graphs.

    python bench/forms.py [BUNDLE...] [--quick]      of .onnx files, as compress export writes them

Every form holds the default precision alone, in processes of one thread. Rounds alternate between
the forms. The fused graphs answer whether fewer calls are faster: decoder and joiner in one,
encoder and joiner in one, each way with weights of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import compose, helper, numpy_helper

from compress.measure import measure_alone
from compress.progress import track
from default_bundle import teacher_bundle
from export.convert import FORMS, convert_bundle
from export.divergence import example_inputs
from export.pack import pack_bundle, unpack_bundle
from streaming.bundle import BundleInfo, read_bundle
from streaming.session import open_session

RESULTS = Path(__file__).with_name("results")
SECONDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="*", help="the built-in teacher by default")
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds")
    arguments = parser.parse_args()
    bundles = arguments.bundles or [teacher_bundle()]
    found = [measure_bundle(bundle, 3 if arguments.quick else 15) for bundle in bundles]
    quick = "-quick" if arguments.quick else ""
    (RESULTS / f"forms{quick}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def measure_bundle(bundle: Path, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folders = write_forms(bundle, Path(place))
        rows = measure_forms(folders, rounds)
        info = read_bundle(folders["onnx"])
        fused = measure_fused(info, 40 * rounds)
    print(f"{info.name}, {info.default_precision}")
    for row in rows:
        print("  " + "  ".join(f"{key} {value}" for key, value in row.items()))
    for name, ratio in fused.items():
        print(f"  {name}: {ratio:.3f} of the separate graphs")
    return {
        "bundle": info.name,
        "precision": info.default_precision,
        "forms": rows,
        "fused": fused,
    }


def write_forms(bundle: Path, place: Path) -> dict[str, Path]:
    """form -> folder with the default precision alone; the packs lie beside."""
    pack_bundle(bundle, place / "onnx.pack")
    unpack_bundle(place / "onnx.pack", place / "onnx")
    for form in FORMS:
        convert_bundle(place / "onnx", form, place / form)
        pack_bundle(place / form, place / f"{form}.pack")
    return {form: place / form for form in ("onnx", *FORMS)}


def measure_forms(folders: dict[str, Path], rounds: int) -> list[dict[str, Any]]:
    samples = np.random.default_rng(0).normal(0, 0.1, SECONDS * 16000).astype(np.float32)
    sessions = {form: open_session(read_bundle(folder)) for form, folder in folders.items()}
    loads: dict[str, list[tuple[float, float]]] = {form: [] for form in folders}
    chunks: dict[str, list[float]] = {form: [] for form in folders}
    for _ in track(range(rounds), "loading and decoding", rounds):
        for form, folder in folders.items():
            loads[form].append(measure_alone(folder, samples))
        for form, session in sessions.items():
            chunks[form] += [time_chunk(session) for _ in range(40)]
    return [
        {
            "form": form,
            "bytes": sum((folder / n).stat().st_size for n in graph_files(folder)),
            "packed_bytes": folder.with_name(f"{form}.pack").stat().st_size,
            "load_ms": round(statistics.median(load for load, _ in loads[form]), 1),
            "load_ms_fastest": round(min(load for load, _ in loads[form]), 1),
            "peak_rss_mb": round(statistics.median(peak for _, peak in loads[form]), 1),
            "chunk_ms": round(float(np.percentile(chunks[form], 10)), 3),
        }
        for form, folder in folders.items()
    ]


def graph_files(folder: Path) -> list[str]:
    info = read_bundle(folder)
    return info.list_files(info.default_precision)


def time_chunk(session: Any) -> float:
    """Milliseconds of the encoder on one chunk of noise."""
    info = session.info
    shape = (1, info.chunk_frames, info.features.num_mel_bins)
    chunk = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    state = session.initial_state()
    begin = time.perf_counter()
    session.encode(chunk, state)
    return 1000 * (time.perf_counter() - begin)


def measure_fused(info: BundleInfo, rounds: int) -> dict[str, float]:
    """Time of a chunk with one label, in shares of the separate graphs (fastest tenth of rounds).

    decoder+joiner: the call that a label costs twice becomes one. encoder+joiner: the frames up to
    the first label, with the prediction that there was.
    """
    frames = info.chunk_frames // info.subsampling
    networks = {g: onnx.load(info.graph_path(g, info.default_precision)) for g in info.tensors}
    feeds = {g: example_inputs(info, g, num_streams=1) for g in networks}
    feeds["joiner, batched"] = [np.repeat(part, frames, axis=0) for part in feeds["joiner"]]
    one = fuse_predictor(networks)
    other = fuse_encoder(networks, frames)
    ways: dict[str, list[tuple[onnx.ModelProto, list[Any], int]]] = {
        "separate": [
            (networks["encoder"], feeds["encoder"], 1),
            (networks["decoder"], feeds["decoder"], 1),
            (networks["joiner"], feeds["joiner"], frames),
        ],
        "decoder+joiner": [
            (networks["encoder"], feeds["encoder"], 1),
            (one, [*feeds["decoder"], feeds["joiner"][0]], 1),
            (networks["joiner"], feeds["joiner"], frames - 1),
        ],
        "encoder+joiner": [
            (other, [*feeds["encoder"], feeds["joiner, batched"][1]], 1),
            (networks["decoder"], feeds["decoder"], 1),
            (networks["joiner"], feeds["joiner"], frames // 2),  # after the label, on average
        ],
    }
    loaded = {way: [(load(m), f, n) for m, f, n in calls] for way, calls in ways.items()}
    times: dict[str, list[float]] = {way: [] for way in loaded}
    for _ in range(rounds):
        for way, calls in loaded.items():
            begin = time.perf_counter()
            for run, feed, count in calls:
                for _ in range(count):
                    run(feed)
            times[way].append(time.perf_counter() - begin)
    tenth = {way: float(np.percentile(values, 10)) for way, values in times.items()}
    return {way: tenth[way] / tenth["separate"] for way in ways if way != "separate"}


def fuse_predictor(networks: dict[str, onnx.ModelProto]) -> onnx.ModelProto:
    """(labels, encoded) -> logits, predicted."""
    decoder = compose.add_prefix(networks["decoder"], "d_")
    joiner = compose.add_prefix(networks["joiner"], "j_")
    link = (decoder.graph.output[0].name, joiner.graph.input[1].name)
    outputs = [joiner.graph.output[0].name, *(value.name for value in decoder.graph.output)]
    return compose.merge_models(decoder, joiner, io_map=[link], outputs=outputs)


def fuse_encoder(networks: dict[str, onnx.ModelProto], frames: int) -> onnx.ModelProto:
    """(features, states, predicted (T', J)) -> encoded, states, logits (T', V)."""
    encoder = compose.add_prefix(networks["encoder"], "e_")
    joiner = compose.add_prefix(networks["joiner"], "j_")
    graph, width = encoder.graph, joiner.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    kept = [value.name for value in graph.output]
    graph.initializer.append(numpy_helper.from_array(np.array([-1, width]), "flat_shape"))
    graph.node.append(helper.make_node("Reshape", [kept[0], "flat_shape"], ["flat"]))
    graph.output.append(helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, ["M", width]))
    link = ("flat", joiner.graph.input[0].name)
    outputs = [*kept, joiner.graph.output[0].name]
    return compose.merge_models(encoder, joiner, io_map=[link], outputs=outputs)


def load(model: onnx.ModelProto) -> Any:
    """A call that takes the graph's inputs in their order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [value.name for value in session.get_inputs()]
    return lambda feed: session.run(None, dict(zip(names, feed, strict=True)))


if __name__ == "__main__":
    main()
