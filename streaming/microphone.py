"""Sound as it is spoken: a microphone through sounddevice, or a sound file that plays as one.

sounddevice and its PortAudio library are loaded only when a microphone is asked for.
"""

import logging
import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streaming.audio import SUFFIXES, check_samples, open_audio
from streaming.errors import AudioError
from streaming.features import FloatArray
from streaming.resample import Resampler

BLOCK_SECONDS = 0.05
POLL_SECONDS = 0.2  # how often a silent device lets Ctrl-C through
GONE_SECONDS = 3.0  # a device that says nothing for so long, not even silence, has gone
BUFFER_SECONDS = 30.0  # of sound that waits to be decoded; what comes then is lost
SEE_DEVICES = "compress listen --list-devices names those that are there"

logger = logging.getLogger(__name__)


@dataclass
class Loss:
    """Sound that was spoken and is not heard: how often, and how much of it is known."""

    times: int = 0
    seconds: float = 0.0


def open_microphone(
    device: str | int | None = None,
    sample_rate: int = 16000,
    realtime: bool = True,
    loss: Loss | None = None,
) -> Iterator[FloatArray]:
    """Yields blocks of mono float32 (num_samples,) at sample_rate until the sound ends.

    device: a number or part of a name of list_microphones(), None for the default one, or
    the path of a sound file, which plays at its own speed (realtime) or as fast as it is read.
    loss: counts what the device or a slow reader loses; without it a warning is logged.
    Raises AudioError naming the fix: no PortAudio, no such device, one that stops, a bad file.
    """
    if isinstance(device, str) and _is_path(device):
        return _play_file(Path(device), sample_rate, realtime)
    return _record(device, sample_rate, loss)


def list_microphones() -> list[str]:
    """A line for each device that records; * marks the default one."""
    sounddevice = _load_sounddevice()
    default = sounddevice.default.device[0]
    lines = [
        f"{'*' if number == default else ' '} {number:3d}  {device['name']}, "
        f"{device['max_input_channels']} channels, {device['default_samplerate']:.0f} Hz"
        for number, device in enumerate(sounddevice.query_devices())
        if device["max_input_channels"] > 0
    ]
    if not lines:
        raise AudioError("no microphone is connected: plug one in, or give a sound file")
    return lines


def _is_path(device: str) -> bool:
    return Path(device).is_file() or Path(device).suffix.lower() in SUFFIXES


def _play_file(path: Path, sample_rate: int, realtime: bool) -> Iterator[FloatArray]:
    with open_audio(path) as file:
        resampler = Resampler(file.sample_rate, sample_rate)
        start, played_seconds = time.monotonic(), 0.0
        for block in file.blocks(BLOCK_SECONDS):
            played_seconds += len(block) / file.sample_rate
            if realtime:
                time.sleep(max(0.0, start + played_seconds - time.monotonic()))
            yield resampler.accept(block)
        yield resampler.finish()


def _load_sounddevice() -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise AudioError(
            "the microphone needs sounddevice: pip install sounddevice, or give a sound file"
        ) from None
    except OSError:
        raise AudioError(
            "the microphone needs PortAudio: install it (Debian: apt install libportaudio2), "
            "or give a sound file as the device"
        ) from None
    return sounddevice


class Recording:
    """What the device's own thread hands over: a bounded queue of blocks, and what is lost."""

    def __init__(self, loss: Loss | None) -> None:
        self.blocks: queue.Queue[FloatArray] = queue.Queue(round(BUFFER_SECONDS / BLOCK_SECONDS))
        self._loss = loss

    def keep(self, samples: FloatArray, _frames: int, _time: Any, status: Any) -> None:
        """Called by PortAudio: must not wait."""
        if status:
            self._lose(0.0, str(status))
        try:
            self.blocks.put_nowait(samples.copy())
        except queue.Full:
            self._lose(BLOCK_SECONDS, "it is not decoded in time")

    def _lose(self, seconds: float, reason: str) -> None:
        if self._loss is None:
            logger.warning("the microphone lost sound: %s", reason)
        else:
            self._loss.times += 1
            self._loss.seconds += seconds

    def read(self, stream: Any) -> Iterator[FloatArray]:
        """Blocks until the stream is not active, or nothing came for GONE_SECONDS."""
        last = time.monotonic()
        while stream.active or not self.blocks.empty():
            try:
                block = self.blocks.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if time.monotonic() - last > GONE_SECONDS:
                    return
                continue
            last = time.monotonic()
            yield block


def _record(device: str | int | None, sample_rate: int, loss: Loss | None) -> Iterator[FloatArray]:
    """Records at the device's own rate, which always works, and resamples."""
    sounddevice = _load_sounddevice()
    if isinstance(device, str) and device.isdigit():
        device = int(device)
    name = device if device is not None else "(default)"
    recording = Recording(loss)
    try:
        rate = int(sounddevice.query_devices(device, "input")["default_samplerate"])
        resampler = Resampler(rate, sample_rate)
        size = round(rate * BLOCK_SECONDS)
        with sounddevice.InputStream(
            rate, size, device, channels=1, dtype="float32", callback=recording.keep
        ) as stream:
            for samples in recording.read(stream):
                yield resampler.accept(check_samples(samples, "microphone"))
    except (ValueError, sounddevice.PortAudioError) as error:
        if isinstance(error, AudioError):
            raise
        reason = str(error).splitlines()[0] if str(error) else "unknown"
        raise AudioError(f"microphone {name}: {reason}: {SEE_DEVICES}") from None
    raise AudioError(f"microphone {name} stopped: plug it in and start again; {SEE_DEVICES}")
