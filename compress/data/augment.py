"""Make a clean recording sound like a room, a distance, a telephone.

Order: speed -> room -> noise at a drawn SNR -> band limit -> level. Everything is drawn from the
generator that is passed in, so the same generator state gives the same samples. Convolutions go
through numpy's FFT: 3 s of speech take 2 to 3 ms.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 16_000
SPEED_STEPS = 40


@dataclass(frozen=True)
class AugmentSettings:
    """How often (0..1) and how strongly; ranges are drawn uniformly, levels in dB.

    speed moves pitch and tempo together, as a tape does, in steps of 1/40. It changes the length: a
    caller with an alignment draws the factor itself by `draw_speed`, hands it to `augment` and
    divides the times by it. level_db is the RMS of the speech to full scale.
    """

    speed_probability: float = 0.5
    speed: tuple[float, float] = (0.9, 1.1)
    room_probability: float = 0.5
    reverberation_seconds: tuple[float, float] = (0.1, 0.6)
    noise_probability: float = 0.8
    snr_db: tuple[float, float] = (5.0, 35.0)
    band_probability: float = 0.1
    band_edge_hertz: tuple[float, float] = (3400.0, 4000.0)
    level_probability: float = 1.0
    level_db: tuple[float, float] = (-40.0, -14.0)


def augment(
    samples: np.ndarray,
    rng: np.random.Generator,
    noises: Sequence[np.ndarray] = (),
    rirs: Sequence[np.ndarray] = (),
    settings: AugmentSettings = AugmentSettings(),
    speed: float | None = None,
) -> np.ndarray:
    """Augment mono float32 samples at 16 kHz; peak at most 1.

    Without `noises` coloured noise is made, without `rirs` rooms are. speed is a factor already
    drawn by `draw_speed`; None draws it here.
    """
    if len(samples) == 0:
        return samples
    samples = change_speed(samples, draw_speed(rng, settings) if speed is None else speed)
    if rng.random() < settings.room_probability:
        samples = add_room(samples, draw_room(rng, rirs, settings))
    if rng.random() < settings.noise_probability:
        noise = draw_noise(rng, noises, len(samples))
        samples = add_noise(samples, noise, rng.uniform(*settings.snr_db))
    if rng.random() < settings.band_probability:
        samples = limit_band(samples, rng.uniform(*settings.band_edge_hertz))
    if rng.random() < settings.level_probability:
        samples = samples * (10 ** (rng.uniform(*settings.level_db) / 20) / speech_level(samples))
    peak = float(np.abs(samples).max())
    return (samples / max(peak, 1.0)).astype(np.float32)


def draw_speed(rng: np.random.Generator, settings: AugmentSettings) -> float:
    """A multiple of 1/40; 1.0 where the recording keeps its speed, 1.1 is faster and shorter."""
    apply = rng.random() < settings.speed_probability
    factor = round(rng.uniform(*settings.speed) * SPEED_STEPS) / SPEED_STEPS
    return factor if apply else 1.0


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play `factor` times as fast: ceil(T / factor) samples, by cutting or extending the spectrum.

    The factor is rounded to a multiple of 1/40, so that both FFTs have lengths of small primes.
    """
    steps = round(factor * SPEED_STEPS)
    if steps == SPEED_STEPS:
        return samples
    num_blocks = fast_length(-(-len(samples) // steps))
    source, target = num_blocks * steps, num_blocks * SPEED_STEPS
    spectrum = np.fft.rfft(samples, source)[: target // 2 + 1]
    changed = np.fft.irfft(spectrum, target) * (target / source)
    num_samples = -(-len(samples) * SPEED_STEPS // steps)
    return changed[:num_samples].astype(np.float32)


def draw_room(
    rng: np.random.Generator, rirs: Sequence[np.ndarray], settings: AugmentSettings
) -> np.ndarray:
    """One of `rirs`, or a made room: direct sound, six early echoes and a decaying tail.

    The tail loses 60 dB in the drawn reverberation time; the direct sound, sample 0, has 0 to
    15 dB more energy than all reflections.
    """
    if len(rirs) > 0:
        rir = np.asarray(rirs[int(rng.integers(len(rirs)))], dtype=np.float32)
        return rir[int(np.abs(rir).argmax()) :]
    seconds = rng.uniform(*settings.reverberation_seconds)
    times = np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    decay = np.exp(-np.log(1000.0) / seconds * times)
    room = rng.standard_normal(len(times), dtype=np.float32) * decay
    delays = rng.integers(int(0.001 * SAMPLE_RATE), int(0.03 * SAMPLE_RATE), size=6)
    room[delays] += 4 * rng.choice([-1.0, 1.0], size=6) * decay[delays]
    room[0] = 0.0
    reflected = float(np.sqrt(np.sum(room**2)))
    room[0] = reflected * 10 ** (rng.uniform(0.0, 15.0) / 20)
    return room / room[0]


def add_room(samples: np.ndarray, rir: np.ndarray) -> np.ndarray:
    """Convolve and keep the first T samples: the direct sound, rir[0], stays where it was."""
    size = fast_length(len(samples) + len(rir) - 1)
    product = np.fft.rfft(samples, size) * np.fft.rfft(rir, size)
    return np.fft.irfft(product, size)[: len(samples)].astype(np.float32)


def draw_noise(
    rng: np.random.Generator, noises: Sequence[np.ndarray], num_samples: int
) -> np.ndarray:
    """A random stretch of one of `noises`, repeated where short, or noise of slope 1/f^0..1/f^2."""
    if len(noises) > 0:
        noise = noises[int(rng.integers(len(noises)))]
        start = int(rng.integers(len(noise)))
        if start + num_samples <= len(noise):
            return noise[start : start + num_samples]
        return np.take(noise, np.arange(start, start + num_samples), mode="wrap")
    size = fast_length(num_samples)
    spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    hertz = np.maximum(np.arange(len(spectrum)) * (SAMPLE_RATE / size), 20.0)
    spectrum *= hertz ** (-0.5 * rng.uniform(0.0, 2.0))
    return np.fft.irfft(spectrum, size)[:num_samples].astype(np.float32)


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Add `noise`, as long as `samples`, `snr_db` below the speech; digital silence adds none."""
    power = float(np.sqrt(np.mean(noise**2)))
    if power == 0.0:
        return samples
    return samples + noise * (speech_level(samples) / power * 10 ** (-snr_db / 20))


def limit_band(samples: np.ndarray, edge_hertz: float, low_hertz: float = 200.0) -> np.ndarray:
    """Keep low_hertz..edge_hertz, as a telephone does, with slopes of 100 and 300 Hz."""
    size = fast_length(len(samples) + SAMPLE_RATE // 20)
    spectrum = np.fft.rfft(samples, size)
    hertz = np.arange(len(spectrum)) * (SAMPLE_RATE / size)
    gain = np.clip((edge_hertz - hertz) / 300 + 1, 0, 1) * np.clip(
        (hertz - low_hertz) / 100 + 1, 0, 1
    )
    return np.fft.irfft(spectrum * gain, size)[: len(samples)].astype(np.float32)


def speech_level(samples: np.ndarray) -> float:
    """RMS of the louder half of the 20 ms frames, so pauses do not count; at least 1e-5."""
    frame = SAMPLE_RATE // 50
    padded = np.pad(samples, (0, -len(samples) % frame))
    powers = np.sort(np.mean(padded.reshape(-1, frame) ** 2, axis=1))
    return max(float(np.sqrt(np.mean(powers[len(powers) // 2 :]))), 1e-5)


@functools.cache
def _smooth_numbers() -> np.ndarray:
    """All 2^a 3^b 5^c up to 2^24, sorted: the lengths for which an FFT is fast."""
    limit = 2**24
    powers = [[p**k for k in range(25) if p**k <= limit] for p in (2, 3, 5)]
    numbers = {a * b * c for a in powers[0] for b in powers[1] for c in powers[2]}
    return np.array(sorted(n for n in numbers if n <= limit))


def fast_length(num_samples: int) -> int:
    """The smallest length of small primes that holds `num_samples` (at most 2^24, 17 minutes)."""
    numbers = _smooth_numbers()
    if num_samples > numbers[-1]:
        raise ValueError(f"at most 2^24 samples at once; got {num_samples}: cut the recording")
    return int(numbers[np.searchsorted(numbers, num_samples)])
