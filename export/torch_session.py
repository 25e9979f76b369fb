"""The torch modules behind the calls of streaming.session.Session.

# Letters: N streams, T frames, F mel bins, S encoder frames, J joint width, V tokens incl. blank.

In torch blank is id 0. Where a bundle has it last (target sherpa_nemo), so have the modules that
run here (export/targets): both sides of a comparison speak of the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from export.targets import MODULES
from export.wrap import AnyPredictor, Encoder, EncoderExport, Joiner
from streaming.bundle import BundleInfo
from streaming.features import FloatArray
from streaming.session import SESSIONS, Array, LabelArray, Memory, State


class Runner(Protocol):
    """What streaming.session.Session and TorchSession have in common."""

    info: BundleInfo

    def initial_state(self, num_streams: int = 1) -> State: ...

    def encode(self, chunk: FloatArray, state: State) -> tuple[FloatArray, State]: ...

    def empty_memory(self, num_streams: int = 1) -> Memory: ...

    def predict(self, labels: LabelArray, memory: Memory) -> tuple[FloatArray, Memory]: ...

    def join(self, encoded: FloatArray, predicted: FloatArray) -> FloatArray: ...

    @property
    def joins_rows_alone(self) -> bool: ...


class TorchSession:
    """Encoder, predictor and joiner in torch, in the form that the bundle's target gives them.

    The three are kept as they came, for another export; copies of them run.
    """

    def __init__(
        self, info: BundleInfo, encoder: Encoder, predictor: AnyPredictor, joiner: Joiner
    ) -> None:
        self.info = info
        self.encoder, self.predictor, self.joiner = encoder, predictor, joiner
        self._modules = MODULES[info.target](encoder, predictor, joiner)
        session = SESSIONS[info.target](info, self._run, "torch")
        self.initial_state = session.initial_state
        self.encode = session.encode
        self.empty_memory = session.empty_memory
        self.predict = session.predict
        self.join = session.join
        self.joins_rows_alone = True

    @torch.no_grad()
    def _run(self, graph: str, inputs: Sequence[Array]) -> list[Array]:
        outputs = self._modules[graph](*map(torch.from_numpy, inputs))
        several = outputs if isinstance(outputs, tuple) else (outputs,)
        return [output.numpy() for output in several]

    @torch.no_grad()
    def encode_whole(self, features: FloatArray) -> FloatArray:
        """features (N, T, F), T a multiple of the chunk -> (N, S, J)."""
        lengths = torch.full((features.shape[0],), features.shape[1])
        encoder = cast(EncoderExport, self._modules["encoder"]).encoder
        encoded: Tensor = encoder(torch.from_numpy(features), lengths)[0]
        return encoded.numpy()
