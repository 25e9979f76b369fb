"""Any sample rate to any other, in pieces: a windowed-sinc polyphase filter in numpy.

With up/down = output rate / input rate in lowest terms, output m lies at input time m * down / up:

    y[m] = sum_k x[k] h(m * down / up - k),   h(t) = c sinc(c t) hann(t / K)
    c = ROLLOFF min(1, up / down),            K = NUM_ZEROS / c, rounded up

h has one row of taps for each of the `up` phases. Outputs depend on integers and on the same taps
in the same order however the signal was cut, so they are the same to the bit.
"""

import math
from typing import Any

import numpy as np

from streaming.errors import AudioError
from streaming.features import FloatArray

NUM_ZEROS = 16  # zero crossings of the sinc on each side
ROLLOFF = 0.945  # to 16 kHz: flat to 7 kHz, -44 dB at 8.5 kHz, -63 dB at 9.5 kHz
MIN_RATE, MAX_RATE = 1000, 768000
MAX_TAPS = 1 << 23  # 32 MB of filter; 767999 Hz would take half a gigabyte and eight seconds
BLOCK = 4096  # outputs computed at once, which bounds the memory


class Resampler:
    """accept() pieces (num_samples,) float32, finish() once; both return what is ready.

    In all, n samples become ceil(n * output_rate / input_rate).
    """

    def __init__(self, input_rate: int, output_rate: int) -> None:
        for rate in (input_rate, output_rate):
            if int(rate) != rate or not MIN_RATE <= rate <= MAX_RATE:
                raise AudioError(
                    f"sample rate {rate} is not an integer in {MIN_RATE}..{MAX_RATE}: "
                    "give the rate of the samples in Hz"
                )
        divisor = math.gcd(int(input_rate), int(output_rate))
        self.up = int(output_rate) // divisor
        self.down = int(input_rate) // divisor
        if 2 * NUM_ZEROS / ROLLOFF * max(self.up, self.down) > MAX_TAPS:
            raise AudioError(
                f"sample rate {input_rate} shares too little with {output_rate} to be converted "
                f"here: convert the sound first, e.g. ffmpeg -i IN -ar {output_rate} OUT.wav"
            )
        self.num_accepted = 0
        self.num_returned = 0
        self.finished = False
        self._taps = build_taps(self.up, self.down)
        self._half = self._taps.shape[1] // 2
        # The samples from input index _start on; half a filter of zeros stands before the first.
        self._start = -self._half
        self._pending = np.zeros(self._half, dtype=np.float32)

    def accept(self, samples: FloatArray) -> FloatArray:
        assert not self.finished, "accept() after finish()"
        self.num_accepted += len(samples)
        if self.up == self.down:
            return samples
        self._pending = np.concatenate([self._pending, samples])
        # Output m needs inputs up to floor(m * down / up) + half.
        last = self.num_accepted - 1 - self._half
        return self._compute((last * self.up + self.up - 1) // self.down + 1 if last >= 0 else 0)

    def finish(self) -> FloatArray:
        if self.finished or self.up == self.down:
            self.finished = True
            return np.zeros(0, dtype=np.float32)
        self.finished = True
        self._pending = np.concatenate([self._pending, np.zeros(self._half, dtype=np.float32)])
        return self._compute(-(-self.num_accepted * self.up // self.down))

    def save(self) -> dict[str, Any]:
        """What restore() needs, as plain values."""
        names = ("num_accepted", "num_returned", "finished", "_start", "_pending")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def restore(cls, input_rate: int, output_rate: int, saved: dict[str, Any]) -> "Resampler":
        """A resampler that goes on where another was saved. Raises ValueError if it cannot."""
        resampler = cls(input_rate, output_rate)
        pending = np.asarray(saved["_pending"])
        if pending.dtype != np.float32 or pending.ndim != 1 or not np.isfinite(pending).all():
            raise ValueError("samples are missing")
        resampler._pending = pending
        resampler.num_accepted = int(saved["num_accepted"])
        resampler.num_returned = int(saved["num_returned"])
        resampler._start = int(saved["_start"])
        resampler.finished = bool(saved["finished"])
        behind = resampler._half if resampler.finished and resampler.up != resampler.down else 0
        if resampler.up != resampler.down and (
            resampler._start + len(pending) != resampler.num_accepted + behind
        ):
            raise ValueError("samples are missing")
        return resampler

    def _compute(self, stop: int) -> FloatArray:
        """Outputs num_returned..stop-1; forgets the inputs that no later output needs."""
        blocks = [np.zeros(0, dtype=np.float32)]
        while self.num_returned < stop:
            end = min(stop, self.num_returned + BLOCK)
            position = np.arange(self.num_returned, end, dtype=np.int64) * self.down
            first = position // self.up - self._half + 1 - self._start
            columns = first[:, None] + np.arange(2 * self._half)
            taps = self._taps[position % self.up]
            blocks.append(np.einsum("mk,mk->m", self._pending[columns], taps))
            self.num_returned = end
            drop = end * self.down // self.up - self._half + 1 - self._start
            drop = max(0, min(drop, len(self._pending)))
            self._pending = self._pending[drop:]
            self._start += drop
        return np.concatenate(blocks)


def build_taps(up: int, down: int) -> FloatArray:
    """h as (up, 2K): row p, column k weighs input floor(t) - K + 1 + k at phase p / up."""
    cutoff = ROLLOFF * min(1.0, up / down)
    half = math.ceil(NUM_ZEROS / cutoff)
    offsets = np.arange(up)[:, None] / up - np.arange(1 - half, half + 1)
    window = np.cos(np.pi * np.clip(offsets / half, -1, 1) / 2) ** 2
    return np.asarray(cutoff * np.sinc(cutoff * offsets) * window, dtype=np.float32)
