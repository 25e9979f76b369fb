"""Sound as it is spoken: a microphone through sounddevice, or a sound file that plays as one.

sounddevice and its PortAudio library are loaded only when a microphone is opened.
"""

import logging
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streaming.audio import SUFFIXES, check_samples, open_audio
from streaming.errors import AudioError
from streaming.features import FloatArray
from streaming.resample import Resampler

BLOCK_SECONDS = 0.05
POLL_SECONDS = 0.2  # how often a silent device lets Ctrl-C through

logger = logging.getLogger(__name__)


def open_microphone(
    device: str | int | None = None, sample_rate: int = 16000, realtime: bool = True
) -> Iterator[FloatArray]:
    """Yields blocks of mono float32 (num_samples,) at sample_rate until the sound ends.

    device: a number or part of a name from `python -m sounddevice`, None for the default one, or
    the path of a sound file, which plays at its own speed (realtime) or as fast as it is read.
    Raises AudioError naming the fix: no PortAudio, no such device, a bad file.
    """
    if isinstance(device, str) and _is_path(device):
        return _play_file(Path(device), sample_rate, realtime)
    return _record(device, sample_rate)


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


def _record(device: str | int | None, sample_rate: int) -> Iterator[FloatArray]:
    """Records at the device's own rate, which always works, and resamples."""
    sounddevice = _load_sounddevice()
    blocks: queue.SimpleQueue[FloatArray] = queue.SimpleQueue()

    def keep(samples: FloatArray, _frames: int, _time: Any, status: Any) -> None:
        if status:
            logger.warning("the microphone lost sound: %s", status)
        blocks.put(samples.copy())

    if isinstance(device, str) and device.isdigit():
        device = int(device)
    try:
        rate = int(sounddevice.query_devices(device, "input")["default_samplerate"])
        resampler = Resampler(rate, sample_rate)
        size = round(rate * BLOCK_SECONDS)
        with sounddevice.InputStream(
            rate, size, device, channels=1, dtype="float32", callback=keep
        ) as stream:
            while stream.active:
                try:
                    samples = blocks.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                yield resampler.accept(check_samples(samples, "microphone"))
    except (ValueError, sounddevice.PortAudioError) as error:
        if isinstance(error, AudioError):
            raise
        reason = str(error).splitlines()[0] if str(error) else "unknown"
        raise AudioError(
            f"microphone {device if device is not None else '(default)'}: {reason}: "
            "list the devices with python -m sounddevice"
        ) from None
