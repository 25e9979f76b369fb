"""The three graphs of a bundle in onnxruntime, one call each; state goes in and comes out.

Letters: N streams, T' encoder frames, F mel bins, J joiner width, V tokens incl. blank,
L layers and P width of a predictor's LSTM, R rows of a call.

A state is a tuple of arrays (.., N, ..) with the streams along axis 1; a predictor's memory is a
tuple of arrays (N, ..), with the streams along axis 0. Zero is the empty state of an encoder.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from streaming.bundle import GRAPHS, BundleInfo
from streaming.errors import BundleError, InputError
from streaming.external import SUFFIX
from streaming.features import FloatArray
from streaming.tensors import check_agreement, check_graph

LabelArray = npt.NDArray[np.int64]
Array = npt.NDArray[Any]
State = tuple[Array, ...]
Memory = tuple[Array, ...]
Run = Callable[[str, Sequence[Array]], list[Array]]

MIN_BYTES_FOR_THREADS = 4 << 20  # of a graph, weights included
MAX_ANSWERS_BYTES = 1 << 20  # of a stateless predictor's answers that are kept
ROWS_ALONE_TOLERANCE = 1e-3  # of the largest logit; one int8 scale for both rows gives 0.1 to 1


class Session:
    """The calls of a bundle of target sherpa_lstm; open_session() makes the right one.

    run(graph, inputs) -> outputs, in the order of bundle.json; the predictor's graph is "decoder".
    """

    reset_forgets = False  # whether sherpa-onnx resets encoder and predictor with the text

    def __init__(self, info: BundleInfo, run: Run, precision: str) -> None:
        self.info = info
        self.precision = precision
        self.run = run
        self._answers: dict[bytes, FloatArray] = {}

    def initial_state(self, num_streams: int = 1) -> State:
        """The encoder's empty state: float32 zeros (1, N, S0) and (1, N, S1)."""
        size0, size1 = self.info.state_sizes
        return (
            np.zeros((1, num_streams, size0), dtype=np.float32),
            np.zeros((1, num_streams, size1), dtype=np.float32),
        )

    def encode(self, chunk: FloatArray, state: State) -> tuple[FloatArray, State]:
        """Features (N, chunk_frames, F) -> encoded (N, T', J) and the next state."""
        outputs = self.run("encoder", self.encoder_inputs(chunk, state))
        return self.encoder_outputs(outputs, state)

    def empty_memory(self, num_streams: int = 1) -> Memory:
        """What the predictor remembers before it heard anything: labels (N, context_size) of -1."""
        return (np.full((num_streams, self.info.context_size), -1, dtype=np.int64),)

    def predict(self, labels: LabelArray, memory: Memory) -> tuple[FloatArray, Memory]:
        """Each stream's new label (N,) int64 -> predicted (N, J) and the next memory.

        The answer depends on the last labels alone. Each is asked for once, by itself, and kept:
        so dynamic int8 gives a stream the same answer in any company.
        """
        (context,) = self.predictor_inputs(labels, memory)
        answers = [self._answer(row) for row in context]
        return answers[0] if len(answers) == 1 else np.concatenate(answers), (context,)

    def _answer(self, context: LabelArray) -> FloatArray:
        """Labels (context_size,) -> predicted (1, J)."""
        key = context.tobytes()
        if key not in self._answers:
            answer = self.run("decoder", [context[None]])[0]
            if (len(self._answers) + 1) * answer.nbytes > MAX_ANSWERS_BYTES:
                self._answers.clear()
            self._answers[key] = answer
        return self._answers[key]

    def join(self, encoded: FloatArray, predicted: FloatArray) -> FloatArray:
        """Frames (R, J), each with the prediction (R, J) that it meets -> logits (R, V)."""
        return self.run("joiner", self.joiner_inputs(encoded, predicted))[0]

    @cached_property
    def joins_rows_alone(self) -> bool:
        """Whether a row's logits stay the same when other rows are joined in the same call.

        A joiner in dynamic int8 has one scale for all rows of a call. Tried here: a faint row,
        alone and beside a loud one.
        """
        width = self.info.tensors["joiner"]["inputs"][0]["shape"][1]
        assert isinstance(width, int), "check_graph() asks for the joiner's width"
        noise = np.random.default_rng(0).standard_normal((1, width))
        rows = np.concatenate([noise / 8, noise * 100]).astype(np.float32)
        faint = rows[:1]
        alone, beside = self.join(faint, faint), self.join(rows, rows)[:1]
        return bool(abs(alone - beside).max() <= ROWS_ALONE_TOLERANCE * abs(alone).max())

    # What the graphs are given for these calls, and what their answer means.

    @staticmethod
    def encoder_inputs(chunk: FloatArray, state: State) -> list[Array]:
        return [chunk, *state]

    @staticmethod
    def encoder_outputs(outputs: Sequence[Array], state: State) -> tuple[FloatArray, State]:
        encoded, *after = outputs
        return encoded, tuple(after)

    @staticmethod
    def predictor_inputs(labels: LabelArray, memory: Memory) -> list[Array]:
        return [np.concatenate([memory[0][:, 1:], labels[:, None]], axis=1)]

    @staticmethod
    def joiner_inputs(encoded: FloatArray, predicted: FloatArray) -> list[Array]:
        return [encoded, predicted]


class NemoSession(Session):
    """The same calls for target sherpa_nemo, whose predictor has a state.

    The encoder's state is that of Session and a count of its frames so far (1, N) int64; the
    predictor's memory is h and c (N, L, P) float32.
    """

    reset_forgets = True

    def initial_state(self, num_streams: int = 1) -> State:
        return *super().initial_state(num_streams), np.zeros((1, num_streams), dtype=np.int64)

    def empty_memory(self, num_streams: int = 1) -> Memory:
        assert self.info.predictor_shape is not None, "check_agreement() asks for h and c"
        h = np.zeros((num_streams, *self.info.predictor_shape), dtype=np.float32)
        return h, h.copy()

    def predict(self, labels: LabelArray, memory: Memory) -> tuple[FloatArray, Memory]:
        predicted, _, h, c = self.run("decoder", self.predictor_inputs(labels, memory))
        return predicted[:, :, 0], (h.swapaxes(0, 1), c.swapaxes(0, 1))

    @staticmethod
    def encoder_inputs(chunk: FloatArray, state: State) -> list[Array]:
        num_streams, num_frames, _ = chunk.shape
        lengths = np.full(num_streams, num_frames, dtype=np.int64)
        caches = (part.reshape(num_streams, 1, 1, -1) for part in state[:2])
        audio = np.ascontiguousarray(chunk.swapaxes(1, 2))
        return [audio, lengths, *caches, state[2].reshape(num_streams)]

    @staticmethod
    def encoder_outputs(outputs: Sequence[Array], state: State) -> tuple[FloatArray, State]:
        encoded, _, *after = outputs
        parts = zip(after, state, strict=True)
        frames = np.ascontiguousarray(encoded.swapaxes(1, 2))  # its rows are joined many times
        return frames, tuple(part.reshape(old.shape) for part, old in parts)

    @staticmethod
    def predictor_inputs(labels: LabelArray, memory: Memory) -> list[Array]:
        h, c = (np.ascontiguousarray(part.swapaxes(0, 1)) for part in memory)
        return [labels.astype(np.int32)[:, None], np.ones(len(labels), dtype=np.int32), h, c]

    @staticmethod
    def joiner_inputs(encoded: FloatArray, predicted: FloatArray) -> list[Array]:
        return [np.ascontiguousarray(part)[..., None] for part in (encoded, predicted)]


SESSIONS: dict[str, type[Session]] = {"sherpa_lstm": Session, "sherpa_nemo": NemoSession}


def open_session(info: BundleInfo, precision: str | None = None, num_threads: int = 1) -> Session:
    """Encoder, predictor and joiner of a bundle in onnxruntime, on the CPU.

    precision: a key of info.files; None takes the bundle's default. num_threads: of graphs that
    gain by it, see count_threads().
    Raises BundleError when a graph does not load or has other tensors than bundle.json says.
    """
    if num_threads < 1:
        raise InputError(f"num_threads must be 1 or more, got {num_threads}: use 1")
    check_agreement(info)
    precision = precision or info.default_precision
    return SESSIONS[info.target](info, Graphs(info, precision, num_threads), precision)


class Graphs:
    """The three graphs, loaded and checked; called with a graph's name and its inputs."""

    def __init__(self, info: BundleInfo, precision: str, num_threads: int) -> None:
        paths = {graph: info.graph_path(graph, precision) for graph in GRAPHS}
        self.graphs = {graph: _load_graph(path, num_threads) for graph, path in paths.items()}
        for graph, session in self.graphs.items():
            check_graph(session, info.tensors[graph], paths[graph])
        self._names = {
            name: ([i.name for i in g.get_inputs()], [o.name for o in g.get_outputs()])
            for name, g in self.graphs.items()
        }

    def __call__(self, graph: str, inputs: Sequence[Array]) -> list[Array]:
        names, wanted = self._names[graph]
        outputs: list[Array] = self.graphs[graph].run(wanted, dict(zip(names, inputs, strict=True)))
        return outputs


def count_threads(path: Path, num_threads: int) -> int:
    """Threads of a graph: one of a small one, where waking the others takes longer than the work.

    With two, a Conformer of width 64 takes 1.1 times as long (bench/LOG.md).
    """
    files = (path, path.with_name(path.name + SUFFIX))
    num_bytes = sum(file.stat().st_size for file in files if file.is_file())
    return num_threads if num_bytes >= MIN_BYTES_FOR_THREADS else 1


def _load_graph(path: Path, num_threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = count_threads(path, num_threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types share no public base class
        reason = (str(error).splitlines() or ["unknown"])[0][:160]
        raise BundleError(
            f"{path}: onnxruntime {ort.__version__} cannot load it ({reason}): "
            "export the bundle again or upgrade onnxruntime"
        ) from None
