import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.audio import resample
from streaming.errors import AudioError
from streaming.resample import Resampler

RATES = [8000, 11025, 22050, 44100, 48000, 16001]


def tone(hertz: float, rate: int, num_samples: int) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(num_samples) / rate).astype(np.float32)


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_stays_the_tone(rate):
    out = resample(tone(1000, rate, rate), rate, 16000)
    assert len(out) == 16000
    assert np.abs(out - tone(1000, 16000, 16000))[200:-200].max() < 1e-4


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_what_16_khz_cannot_hold_is_gone(rate):
    assert np.abs(resample(tone(9500, rate, rate), rate, 16000)[200:-200]).max() < 1e-3


def test_the_same_rate_changes_nothing(speech):
    assert np.array_equal(resample(speech, 16000, 16000), speech)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_all_phases_equal_the_sum_written_out(rate):
    resampler = Resampler(rate, 16000)
    samples = tone(440, rate, 500)
    padded = np.pad(samples, 200)
    half = resampler._taps.shape[1] // 2
    expected = []
    for m in range(-(-500 * resampler.up // resampler.down)):
        whole, phase = divmod(m * resampler.down, resampler.up)
        window = padded[200 + whole - half + 1 : 200 + whole + half + 1]
        expected.append(window @ resampler._taps[phase])
    np.testing.assert_allclose(resample(samples, rate, 16000), expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(rate=st.sampled_from(RATES), pieces=st.lists(st.integers(0, 700), max_size=15))
def test_any_cutting_gives_the_same_bits(speech, rate, pieces):
    samples = speech[:6000]
    resampler = Resampler(rate, 16000)
    out, start = [], 0
    for size in [*pieces, 6000]:
        out.append(resampler.accept(samples[start : start + size]))
        start += size
    out.append(resampler.finish())
    assert np.array_equal(np.concatenate(out), resample(samples, rate, 16000))


def test_memory_does_not_grow():
    resampler = Resampler(44100, 16000)
    for _ in range(50):
        resampler.accept(np.zeros(4410, dtype=np.float32))
        assert len(resampler._pending) < 300


@pytest.mark.parametrize("rate", [0, -8000, 999, 16000.5, 10**9])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(AudioError, match="sample rate"):
        Resampler(rate, 16000)
