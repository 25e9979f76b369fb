"""The tensors of a bundle's graphs: as its target has them, and as bundle.json lists them.

Letters: N streams, C chunk frames, T' encoder frames, F mel bins, S0 and S1 state sizes,
J joiner width, V tokens incl. blank, L layers and P width of the predictor's state.
"""

from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from streaming.bundle import BundleInfo, TensorInfo
from streaming.errors import BundleError

DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(int32)": "int32"}
Shape = list[int | str]
Shapes = dict[tuple[str, str], list[Shape]]


def lstm_shapes(info: BundleInfo, width: int | str) -> Shapes:
    """Target sherpa_lstm; `width` is J."""
    frames = info.chunk_frames // info.subsampling
    states: list[Shape] = [[1, "N", size] for size in info.state_sizes]
    return {
        ("encoder", "inputs"): [["N", info.chunk_frames, info.features.num_mel_bins], *states],
        ("encoder", "outputs"): [["N", frames, width], *states],
        ("decoder", "inputs"): [["N", info.context_size]],
        ("decoder", "outputs"): [["N", width]],
        ("joiner", "inputs"): [["N", width], ["N", width]],
        ("joiner", "outputs"): [["N", info.vocab_size]],
    }


def nemo_shapes(info: BundleInfo, width: int | str) -> Shapes:
    """Target sherpa_nemo: channels before frames, lengths beside them; `width` is J."""
    frames = info.chunk_frames // info.subsampling
    size0, size1 = info.state_sizes
    states: list[Shape] = [["N", 1, 1, size0], ["N", 1, 1, size1], ["N"]]
    layers, wide = info.predictor_shape or (1, 1)
    memory: list[Shape] = [[layers, "N", wide], [layers, "N", wide]]
    audio: Shape = ["N", info.features.num_mel_bins, info.chunk_frames]
    return {
        ("encoder", "inputs"): [audio, ["N"], *states],
        ("encoder", "outputs"): [["N", width, frames], ["N"], *states],
        ("decoder", "inputs"): [["N", 1], ["N"], *memory],
        ("decoder", "outputs"): [["N", width, 1], ["N"], *memory],
        ("joiner", "inputs"): [["N", width, 1], ["N", width, 1]],
        ("joiner", "outputs"): [["N", info.vocab_size]],
    }


SHAPES: dict[str, Callable[[BundleInfo, int | str], Shapes]] = {
    "sherpa_lstm": lstm_shapes,
    "sherpa_nemo": nemo_shapes,
}


def check_agreement(info: BundleInfo) -> None:
    """bundle.json must agree with itself: tensor shapes with chunk, state and vocabulary.

    Raises BundleError for the first that does not.
    """
    joined = info.tensors["joiner"]["inputs"]
    width = joined[0]["shape"][1] if joined and len(joined[0]["shape"]) > 1 else "J"
    for (graph, side), wanted in SHAPES[info.target](info, width).items():
        found = [tensor["shape"] for tensor in info.tensors[graph][side]]
        if found != wanted:
            raise BundleError(
                f"{info.folder}/bundle.json: tensors of {graph} {side} are {found}, its "
                f"settings ask for {wanted}: export the bundle again"
            )


def check_graph(
    session: ort.InferenceSession, expected: dict[str, list[TensorInfo]], path: Path
) -> None:
    """Order, names, types and fixed sizes of a graph's tensors must be the bundle's."""
    for side, found in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        wanted = expected[side]
        if len(found) != len(wanted):
            raise BundleError(
                f"{path}: has {len(found)} {side}, bundle.json says {len(wanted)}: "
                "export the bundle again"
            )
        for have, want in zip(found, wanted, strict=True):
            shape = [d if isinstance(d, int) else "N" for d in have.shape]
            dtype = DTYPES.get(have.type, have.type)
            if (have.name, shape, dtype) != (want["name"], want["shape"], want["dtype"]):
                raise BundleError(
                    f"{path}: {side[:-1]} is {have.name!r} {shape} {dtype}, bundle.json says "
                    f"{want['name']!r} {want['shape']} {want['dtype']}: export the bundle again"
                )
