"""A voice activity gate: while nobody speaks no feature is computed and no network runs.

    gate = Gate(GateSettings(), info)
    gate.accept(samples) -> [samples, 12, samples]      what passes, and encoder frames left out

Energy of frames of 10 ms against the noise's own level. The level of noise is the least smoothed
energy of the last four seconds ("minimum statistics", Martin 2001, without its correction of the
bias): speech has pauses shorter than that. The gate starts open and closes only after as much quiet
as the model needs to bring its last word out; what precedes a voice passes with it.

How the signal is cut changes nothing in what passes.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from streaming.bundle import BundleInfo
from streaming.features import FloatArray

FRAME_SECONDS = 0.01
SMOOTHING = 0.7  # of the level before, a frame: 30 ms
PREEMPHASIS = 0.97  # takes away hum and wind, which carry no speech
FLOOR_DB = -90.0  # below one step of 16 bits: digital silence
NUM_BLOCKS, BLOCK_FRAMES = 8, 50  # 8 blocks of half a second remember the least level
SAVED = ("is_open", "num_left_out", "_num_quiet", "_level", "_least", "_num_least", "_last_sample")

Piece = FloatArray | int


@dataclass(frozen=True)
class GateSettings:
    """margin_db: how far over the noise a voice is. pre_roll_seconds pass that precede it.

    hangover_seconds of quiet pass behind it, or more: see Gate.
    """

    margin_db: float = 6.0
    pre_roll_seconds: float = 0.3
    hangover_seconds: float = 2.5


class Gate:
    """The gate of one stream. is_open: whether the next quiet frame still passes.

    It leaves out whole encoder frames, so that timestamps can go on counting them, and none before
    the chunk is complete that holds the last word: tail_frames and a chunk after the last voice.
    """

    def __init__(self, settings: GateSettings, info: BundleInfo) -> None:
        rate, shift = info.features.sample_rate, info.features.shift_samples
        self.settings = settings
        self.is_open = True
        self.num_left_out = 0  # encoder frames so far
        self._frame_samples = round(rate * FRAME_SECONDS)
        self._unit_samples = info.subsampling * shift
        self._pre_roll_samples = round(settings.pre_roll_seconds * rate)
        needed = (info.tail_frames + info.chunk_frames) * shift / rate
        self._hangover_frames = math.ceil(max(settings.hangover_seconds, needed) / FRAME_SECONDS)
        self._num_quiet = 0
        self._level = FLOOR_DB
        self._minima = deque([FLOOR_DB] * NUM_BLOCKS, maxlen=NUM_BLOCKS)
        self._least, self._num_least = math.inf, 0  # of the block so far, and its frames
        self._last_sample = 0.0
        self._rest = np.zeros(0, dtype=np.float32)  # less than a frame
        self._held = np.zeros(0, dtype=np.float32)  # quiet that a voice may still want

    def accept(self, samples: FloatArray) -> list[Piece]:
        """Takes (num_samples,); returns what passes of it and of before, in order."""
        samples = np.concatenate([self._rest, samples])
        num_frames = len(samples) // self._frame_samples
        end = num_frames * self._frame_samples
        frames, self._rest = samples[:end].reshape(-1, self._frame_samples), samples[end:]
        pieces: list[Piece] = []
        start = 0
        for index, level in enumerate(self._measure(samples[:end])):
            if self._judge(level) == self.is_open:
                continue
            self._pass(pieces, frames[start:index])
            self.is_open, start = not self.is_open, index
            if self.is_open:
                pieces.append(self._held)
                self._held = self._held[:0]
        self._pass(pieces, frames[start:])
        return [piece for piece in pieces if isinstance(piece, int) or len(piece)]

    def finish(self) -> FloatArray:
        """The end of the signal: what is less than a frame, if the gate is open."""
        return self._rest if self.is_open else self._rest[:0]

    def _measure(self, samples: FloatArray) -> list[float]:
        """Level of each frame after pre-emphasis, in dB of full scale."""
        if not len(samples):
            return []
        before = np.concatenate([[np.float32(self._last_sample)], samples[:-1]])
        self._last_sample = float(samples[-1])
        sharp = (samples - np.float32(PREEMPHASIS) * before).reshape(-1, self._frame_samples)
        power = np.square(sharp, dtype=np.float64).mean(axis=1)
        levels: list[float] = (10 * np.log10(power + 10 ** (FLOOR_DB / 10))).tolist()
        return levels

    def _judge(self, level: float) -> bool:
        """Whether a frame shall pass: voice, or quiet soon after one."""
        self._level = SMOOTHING * self._level + (1 - SMOOTHING) * level
        self._least, self._num_least = min(self._least, self._level), self._num_least + 1
        floor = min(self._least, *self._minima)
        if self._num_least == BLOCK_FRAMES:
            self._minima.append(self._least)
            self._least, self._num_least = math.inf, 0
        is_voice = self._level > floor + self.settings.margin_db
        self._num_quiet = 0 if is_voice else self._num_quiet + 1
        return is_voice or (self.is_open and self._num_quiet <= self._hangover_frames)

    def _pass(self, pieces: list[Piece], frames: FloatArray) -> None:
        """Hands frames on, or holds the newest of them and leaves older ones out."""
        if self.is_open:
            pieces.append(frames.reshape(-1))
            return
        self._held = np.concatenate([self._held, frames.reshape(-1)])
        units = max(0, len(self._held) - self._pre_roll_samples) // self._unit_samples
        if units:
            self._held = self._held[units * self._unit_samples :]
            self.num_left_out += units
            pieces.append(units)

    def save(self) -> dict[str, Any]:
        """What restore() needs, as plain values."""
        arrays = {"_rest": self._rest, "_held": self._held}
        return {name: getattr(self, name) for name in SAVED} | arrays | {"_minima": [*self._minima]}

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes on where another gate was saved. Raises ValueError if that cannot be."""
        for name in ("_rest", "_held"):
            samples = np.asarray(saved[name])
            if samples.dtype != np.float32 or samples.ndim != 1 or not np.isfinite(samples).all():
                raise ValueError("samples are missing")
            setattr(self, name, samples)
        for name in SAVED:
            setattr(self, name, type(getattr(self, name))(saved[name]))
        self._minima = deque(map(float, saved["_minima"]), maxlen=NUM_BLOCKS)
