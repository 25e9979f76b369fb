"""Log-mel features by kaldi-native-fbank, for training and for the running stream alike.

Letters: T feature frames, F mel bins.
Two presets, exactly what sherpa-onnx computes, so a bundle hears there what it heard in training:
`kaldi` for its icefall families, `nemo` (Slaney's mel scale, Hann's window) for its NeMo family.
No mean or variance normalisation: that is constants in the graph.
"""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import kaldi_native_fbank as knf
import numpy as np
import numpy.typing as npt

from streaming.errors import InputError

FloatArray = npt.NDArray[np.float32]
AHEAD_FRAMES = 500

PRESETS: dict[str, dict[str, Any]] = {
    "kaldi": {"window": "povey", "remove_dc_offset": True, "low_freq": 20.0, "high_freq": -400.0},
    "nemo": {"window": "hann", "remove_dc_offset": False, "low_freq": 0.0, "high_freq": 8000.0},
}

# What the filter bank gives for digital silence: it floors energies at float32's epsilon.
SILENCE = math.log(float(np.finfo(np.float32).eps))


@dataclass(frozen=True)
class FeatureSettings:
    """The settings that must be the same in training, in streaming/ and in sherpa-onnx.

    Samples lie in [-1, 1]. A negative high_freq counts down from half the sample rate, in Hz.
    preset names the mel scale; preset_settings() has the other values that go with it.
    """

    preset: str = "kaldi"
    sample_rate: int = 16000
    num_mel_bins: int = 80
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0
    window: str = "povey"
    preemphasis: float = 0.97
    remove_dc_offset: bool = True
    low_freq: float = 20.0
    high_freq: float = -400.0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            known = " or ".join(PRESETS)
            raise InputError(f"feature preset {self.preset!r} is not known: use {known}")
        for name, value in PRESETS[self.preset].items():
            if getattr(self, name) != value:
                raise InputError(
                    f"feature preset {self.preset} has {name} {value}, got {getattr(self, name)}: "
                    "use preset_settings()"
                )
        if not 8000 <= self.sample_rate <= 192000 or not 1 <= self.num_mel_bins <= 256:
            raise InputError(
                f"features need 8000..192000 samples a second and 1..256 mel bins; got "
                f"{self.sample_rate} and {self.num_mel_bins}: use 16000 and 80"
            )

    @cached_property
    def shift_samples(self) -> int:
        return int(self.sample_rate * self.frame_shift_ms / 1000)  # kaldi cuts off, too

    @cached_property
    def length_samples(self) -> int:
        return int(self.sample_rate * self.frame_length_ms / 1000)

    def num_frames(self, num_samples: int) -> int:
        """Frames of a finished signal: frames are centred on their shift, so no edge is lost."""
        return (num_samples + self.shift_samples // 2) // self.shift_samples

    def num_whole_frames(self, num_samples: int) -> int:
        """Frames of a signal that may go on: those whose every sample is there."""
        last = num_samples - self.num_samples(1)
        return max(0, last // self.shift_samples + 1)

    def num_samples(self, num_frames: int) -> int:
        """The fewest samples after which `num_frames` frames are ready in an open stream."""
        if num_frames <= 0:
            return 0
        centre = (num_frames - 1) * self.shift_samples + self.shift_samples // 2
        return centre - self.length_samples // 2 + self.length_samples

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "FeatureSettings":
        """Raises InputError for a missing, unknown or mistyped setting."""
        types = {name: type(value) for name, value in asdict(cls()).items()}
        if set(values) != set(types):
            wrong = ", ".join(sorted(set(values) ^ set(types)))
            raise InputError(f"feature settings differ from this version's in: {wrong}")
        for name, expected in types.items():
            value = values[name]
            if expected is float and type(value) is int:
                continue
            if type(value) is not expected:
                raise InputError(f"feature setting {name} must be a {expected.__name__}")
        return cls(**{name: types[name](value) for name, value in values.items()})

    def build_options(self) -> knf.FbankOptions:
        options = knf.FbankOptions()
        frame = options.frame_opts
        frame.samp_freq = self.sample_rate
        frame.frame_length_ms = self.frame_length_ms
        frame.frame_shift_ms = self.frame_shift_ms
        frame.window_type = self.window
        frame.preemph_coeff = self.preemphasis
        frame.remove_dc_offset = self.remove_dc_offset
        frame.dither = 0.0
        frame.snip_edges = False
        options.mel_opts.num_bins = self.num_mel_bins
        options.mel_opts.low_freq = self.low_freq
        options.mel_opts.high_freq = self.high_freq
        options.mel_opts.is_librosa = self.preset == "nemo"  # Slaney's scale and areas
        return options


def preset_settings(preset: str, num_mel_bins: int = 80) -> FeatureSettings:
    """The settings of a preset. Raises InputError for one that does not exist."""
    return FeatureSettings(preset, num_mel_bins=num_mel_bins, **PRESETS.get(preset, {}))


class FeatureStream:
    """Features of a signal that arrives in pieces; how it was cut changes no bit of them.

    read() hands out each frame once and forgets what no later frame needs, so memory does not grow
    with the stream. Frames are computed as their samples come, AHEAD_FRAMES before they are read at
    most: an hour that is accepted at once is kept as samples. restore() goes on from what is kept.
    """

    def __init__(self, settings: FeatureSettings) -> None:
        self.settings = settings
        self.num_samples = 0
        self.num_read = 0
        self.finished = False
        self._samples = np.zeros(0, dtype=np.float32)  # those from _first_kept on
        self._fbank = knf.OnlineFbank(settings.build_options())
        self._num_heard = 0  # samples that _fbank was given, or that lie before its first
        self._first_frame = 0  # of the signal, in _fbank
        self._num_popped = 0

    def accept(self, samples: FloatArray) -> None:
        """Takes (num_samples,) float32 in [-1, 1] at the settings' rate; may be empty."""
        assert not self.finished, "accept() after finish()"
        if len(samples):
            self.num_samples += len(samples)
            self._samples = np.concatenate([self._samples, samples])
            self._hear(self.num_read + AHEAD_FRAMES)

    def finish(self) -> None:
        """Ends the signal: the last frames mirror it at its edge, as kaldi does offline."""
        self.finished = True

    @property
    def num_ready(self) -> int:
        """Frames that can be read now."""
        frames = self.settings.num_frames if self.finished else self.settings.num_whole_frames
        return frames(self.num_samples) - self.num_read

    def read(self, num_frames: int) -> FloatArray | None:
        """The next (num_frames, F) float32, or None while fewer are ready."""
        if num_frames > self.num_ready:
            return None
        stop = self.num_read + num_frames
        self._hear(stop)
        if self.finished and stop > self.settings.num_whole_frames(self.num_samples):
            self._fbank.input_finished()
        frames = np.empty((num_frames, self.settings.num_mel_bins), dtype=np.float32)
        if num_frames:
            get_frame, first = self._fbank.get_frame, self._first_frame
            found = [get_frame(index - first) for index in range(self.num_read, stop)]
            np.concatenate(found, out=frames.reshape(-1))
        self._forget(stop)
        return frames

    def _hear(self, num_frames: int) -> None:
        """Gives _fbank the samples that the frames before `num_frames` need, or what there is.

        As a memoryview: kaldi-native-fbank 1.22 takes what it gets apart one number at a time, and
        a numpy scalar takes 43 ns more than a float.
        """
        stop = min(self.num_samples, self.settings.num_samples(num_frames))
        if stop <= self._num_heard:
            return
        first = self._first_kept
        fresh = self._samples[self._num_heard - first : stop - first]
        self._fbank.accept_waveform(self.settings.sample_rate, fresh.data)
        self._num_heard = stop

    def _forget(self, stop: int) -> None:
        """Drops the frames before `stop`, and the samples before those that a frame needs."""
        before = self._first_kept
        self.num_read = stop
        self._samples = self._samples[self._first_kept - before :]
        self._fbank.pop(stop - self._first_frame - self._num_popped)
        self._num_popped = stop - self._first_frame

    @property
    def _first_kept(self) -> int:
        """The first sample of the frame before the next one.

        A signal that begins there has the same frames from its second on: only the first frame of
        a signal mirrors its edge.
        """
        return max(0, self.num_read - 1) * self.settings.shift_samples

    def save(self) -> dict[str, Any]:
        """What restore() needs, as plain values."""
        names = ("num_samples", "num_read", "finished")
        return {name: getattr(self, name) for name in names} | {"samples": self._samples}

    @classmethod
    def restore(cls, settings: FeatureSettings, saved: dict[str, Any]) -> "FeatureStream":
        """A stream that goes on where another was saved. Raises ValueError if that cannot be."""
        stream = cls(settings)
        stream.num_samples, stream.num_read = int(saved["num_samples"]), int(saved["num_read"])
        stream.finished, samples = bool(saved["finished"]), np.asarray(saved["samples"])
        whole = len(samples) == stream.num_samples - stream._first_kept
        if not whole or samples.dtype != np.float32 or samples.ndim != 1:
            raise ValueError("samples are missing")
        if stream.num_read < 0 or stream.num_ready < 0 or not np.isfinite(samples).all():
            raise ValueError("frames are missing")
        stream._samples = samples
        stream._num_heard = stream._first_kept
        stream._first_frame = max(0, stream.num_read - 1)
        return stream


def compute_features(
    samples: FloatArray, settings: FeatureSettings, tail_frames: int = 0
) -> FloatArray:
    """Features (T, F) float32 of a whole signal (num_samples,); T = settings.num_frames.

    tail_frames > 0 first appends that many frames of zero samples, as a stream's end does: then
    the last frames of the speech fade into silence instead of mirroring its edge.
    """
    stream = FeatureStream(settings)
    stream.accept(np.ascontiguousarray(samples, dtype=np.float32))
    stream.accept(np.zeros(tail_frames * settings.shift_samples, dtype=np.float32))
    stream.finish()
    frames = stream.read(stream.num_ready)
    assert frames is not None
    return frames
