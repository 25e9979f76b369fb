"""The three graphs of a bundle in onnxruntime, one call each; state goes in and comes out.

Letters: N streams, T' encoder frames, F mel bins, J joiner width, V tokens incl. blank.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from streaming.bundle import GRAPHS, BundleInfo, TensorInfo
from streaming.errors import BundleError, InputError
from streaming.features import FloatArray

LabelArray = npt.NDArray[np.int64]
State = tuple[FloatArray, FloatArray]

DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(int32)": "int32"}


class Session:
    """Runs encoder, predictor (the file called decoder) and joiner on the CPU.

    precision: a key of info.files; None takes the bundle's default.
    Raises BundleError when a graph does not load or has other tensors than bundle.json says.
    """

    def __init__(self, info: BundleInfo, precision: str | None = None, num_threads: int = 1):
        if num_threads < 1:
            raise InputError(f"num_threads must be 1 or more, got {num_threads}: use 1")
        self.info = info
        self.precision = precision or info.default_precision
        _check_agreement(info)
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        paths = {graph: info.graph_path(graph, self.precision) for graph in GRAPHS}
        graphs = {graph: _load_graph(path, options) for graph, path in paths.items()}
        for graph, session in graphs.items():
            _check_graph(session, info.tensors[graph], paths[graph])
        self._graphs = graphs
        self._inputs = {name: [i.name for i in g.get_inputs()] for name, g in graphs.items()}

    def initial_state(self, num_streams: int = 1) -> State:
        """The empty state: two float32 zero tensors (1, N, S0) and (1, N, S1)."""
        size0, size1 = self.info.state_sizes
        return (
            np.zeros((1, num_streams, size0), dtype=np.float32),
            np.zeros((1, num_streams, size1), dtype=np.float32),
        )

    def encode(self, chunk: FloatArray, state: State) -> tuple[FloatArray, State]:
        """Features (N, chunk_frames, F) -> encoded (N, T', J) and the next state."""
        encoded, state0, state1 = self._run("encoder", chunk, *state)
        return encoded, (state0, state1)

    def predict(self, labels: LabelArray) -> FloatArray:
        """The last labels (N, context_size) int64, -1 for none -> predicted (N, J)."""
        return self._run("decoder", labels)[0]

    def join(self, encoded: FloatArray, predicted: FloatArray) -> FloatArray:
        """One frame of each stream (N, J) with its prediction (N, J) -> logits (N, V)."""
        return self._run("joiner", encoded, predicted)[0]

    def _run(self, graph: str, *values: FloatArray | LabelArray) -> list[FloatArray]:
        feed = dict(zip(self._inputs[graph], values, strict=True))
        outputs: list[FloatArray] = self._graphs[graph].run(None, feed)
        return outputs


def _load_graph(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types share no public base class
        reason = (str(error).splitlines() or ["unknown"])[0][:160]
        raise BundleError(
            f"{path}: onnxruntime {ort.__version__} cannot load it ({reason}): "
            "export the bundle again or upgrade onnxruntime"
        ) from None


def _check_graph(
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
                    f"{path}: {side[:-1]} is {have.name} {shape} {dtype}, bundle.json says "
                    f"{want['name']} {want['shape']} {want['dtype']}: export the bundle again"
                )


def _check_agreement(info: BundleInfo) -> None:
    """bundle.json must agree with itself: tensor shapes with chunk, state and vocabulary."""
    tensors = info.tensors
    shapes = {
        (graph, side): [tensor["shape"] for tensor in tensors[graph][side]]
        for graph in GRAPHS
        for side in ("inputs", "outputs")
    }
    outputs = shapes["encoder", "outputs"]
    width = outputs[0][-1] if outputs and outputs[0] else None
    frames = info.chunk_frames // info.subsampling
    states: list[list[int | str]] = [[1, "N", size] for size in info.state_sizes]
    chunk: list[int | str] = ["N", info.chunk_frames, info.features.num_mel_bins]
    expected = {
        ("encoder", "inputs"): [chunk, *states],
        ("encoder", "outputs"): [["N", frames, width], *states],
        ("decoder", "inputs"): [["N", info.context_size]],
        ("decoder", "outputs"): [["N", width]],
        ("joiner", "inputs"): [["N", width], ["N", width]],
        ("joiner", "outputs"): [["N", info.vocab_size]],
    }
    for key, wanted in expected.items():
        if shapes[key] != wanted:
            raise BundleError(
                f"{info.folder}/bundle.json: tensors of {' '.join(key)} are {shapes[key]}, its "
                f"settings ask for {wanted}: export the bundle again"
            )
