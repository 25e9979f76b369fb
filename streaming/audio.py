"""Sound files: wav, flac, ogg, opus, mp3 through soundfile, read in blocks and checked.

What is refused, with one line that names the fix: a missing, empty or truncated file, a format
soundfile does not know, and samples that are not finite.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streaming.errors import AudioError
from streaming.features import FloatArray
from streaming.resample import Resampler

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64"}
MAX_CHANNELS = 64
MAX_LEVEL = 64.0  # far over full scale, far under int16 cast to float
UNKNOWN_WAV_SIZE = 0x7FFFF000  # sizes from here on, and 0: a writer to a pipe did not know it


def check_samples(samples: npt.ArrayLike, where: str = "audio", start: int = 0) -> FloatArray:
    """Mono float32 of (num_samples,) or (num_samples, channels) floats in [-1, 1].

    where and start (the index of the first sample) only serve the messages of AudioError.
    """
    array = np.asarray(samples)
    if array.dtype.kind != "f" and array.size:
        raise AudioError(
            f"{where}: samples are {array.dtype}: give float32 in [-1, 1], e.g. int16 / 32768"
        )
    array = array.astype(np.float32, copy=False)
    if array.ndim == 2 and 1 <= array.shape[1] <= MAX_CHANNELS:
        array = _mix_down(array)
    if array.ndim != 1:
        raise AudioError(f"{where}: shape {array.shape}: give (num_samples,) or (.., channels)")
    if array.size and not (array.max() <= MAX_LEVEL and array.min() >= -MAX_LEVEL):  # or NaN
        wrong = np.flatnonzero(~np.isfinite(array))
        if len(wrong):
            where = f"{where}: sample {start + int(wrong[0])}"
            raise AudioError(f"{where} is not finite: repair or leave out the sound")
        raise AudioError(f"{where}: samples reach beyond ±{MAX_LEVEL:.0f}: scale them to [-1, 1]")
    return np.ascontiguousarray(array)


def _mix_down(array: FloatArray) -> FloatArray:
    """Mean over channels, added one by one: a row's sum must not depend on the number of rows."""
    mono = array[:, 0]
    for channel in range(1, array.shape[1]):
        mono = mono + array[:, channel]
    return np.asarray(mono / array.shape[1], dtype=np.float32)


class AudioFile:
    """An open sound file: sample_rate, num_samples, and blocks() of mono float32."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self.sample_rate = int(file.samplerate)
        self.num_samples = int(file.frames)
        self._file = file

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate

    def blocks(self, block_seconds: float = 1.0) -> Iterator[FloatArray]:
        """Raises AudioError when the file ends before its header says, or is not finite."""
        size = max(1, round(block_seconds * self.sample_rate))
        num_read = 0
        while num_read < self.num_samples:
            try:
                block = self._file.read(size, dtype="float32", always_2d=True)
            except RuntimeError:
                block = np.zeros((0, 1), dtype=np.float32)
            if len(block) == 0:
                raise AudioError(
                    f"{self.path}: ends after {num_read} of {self.num_samples} samples: "
                    "it is truncated, copy or record it again"
                )
            yield check_samples(block, str(self.path), num_read)
            num_read += len(block)


@contextmanager
def open_audio(path: Path | str) -> Iterator[AudioFile]:
    """Opens a sound file; raises AudioError naming the file and the fix."""
    import soundfile

    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path}: no such file: check the path")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty: leave it out or record it again")
    try:
        _check_wav_size(path)
        file = soundfile.SoundFile(path)
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror}: check its permissions") from None
    except RuntimeError:  # soundfile's LibsndfileError
        raise AudioError(
            f"{path}: not a sound file soundfile can read: convert it, e.g. ffmpeg -i IN OUT.wav"
        ) from None
    with file:
        if file.frames == 0:
            raise AudioError(f"{path}: holds no sound: leave it out or record it again")
        yield AudioFile(path, file)


def read_audio(path: Path | str) -> tuple[FloatArray, int]:
    """The whole file as mono float32 (num_samples,) in [-1, 1], and its sample rate."""
    with open_audio(path) as file:
        return np.concatenate(list(file.blocks(60.0))), file.sample_rate


def resample(samples: FloatArray, input_rate: int, output_rate: int) -> FloatArray:
    """A whole signal (num_samples,) at another rate."""
    resampler = Resampler(input_rate, output_rate)
    return np.concatenate([resampler.accept(samples), resampler.finish()])


def _check_wav_size(path: Path) -> None:
    """libsndfile shortens a truncated wav in silence; its header still says the full size."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                left = path.stat().st_size - file.tell()
                if left < size < UNKNOWN_WAV_SIZE:
                    raise AudioError(
                        f"{path}: holds {left} of {size} bytes of sound: "
                        "it is truncated, copy or record it again"
                    )
                return
            file.seek(size + size % 2, 1)
    raise AudioError(f"{path}: ends before its sound: it is truncated, copy or record it again")
