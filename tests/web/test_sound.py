"""Features, resampling and WAV reading of the page against streaming/."""

import base64
import io

import numpy as np
import pytest
import soundfile

from streaming.audio import resample
from streaming.features import FeatureSettings, compute_features, preset_settings
from tests.streaming.tiny_bundle import make_speech

RNG = np.random.default_rng(6)
SIGNALS = {
    "speech": make_speech(32000, seed=4),
    "noise": RNG.normal(0, 0.2, 8000),
    "silence": np.zeros(4000),
    "whisper": RNG.normal(0, 1e-3, 8000),
    "a loud tone in silence": np.sin(np.arange(8000) * 0.17),  # whose far bins are rounding alone
    "clipped": np.clip(RNG.normal(0, 2, 4000), -1, 1),
    "speech, then silence": np.r_[make_speech(4000, seed=5), np.zeros(4000)],
    "an offset": 0.5 + RNG.normal(0, 1e-3, 4000),
    "shorter than a frame": RNG.normal(0, 0.1, 90),
    "one sample": np.ones(1),
}


def cut_at_random(samples: np.ndarray, num_cuts: int = 6) -> list[list[float]]:
    """Pieces of random sizes, some of them empty."""
    points = np.sort(RNG.integers(0, len(samples) + 1, num_cuts))
    points[1] = points[0]
    return [piece.tolist() for piece in np.split(samples.astype(np.float32), points)]


@pytest.mark.parametrize("preset", ["kaldi", "nemo"])
def test_features_equal_kaldi_native_fbank_under_any_cutting(values, preset):
    settings = preset_settings(preset)
    calls = [
        {
            "call": "features",
            "settings": settings.to_json(),
            "pieces": cut_at_random(samples),
            "reads": int(RNG.integers(1, 9)),
        }
        for samples in SIGNALS.values()
    ]
    for (name, samples), found in zip(SIGNALS.items(), values(calls), strict=True):
        expected = compute_features(samples.astype(np.float32), settings)
        features = np.array(found["values"]).reshape(-1, settings.num_mel_bins)
        assert features.shape == expected.shape, name
        assert np.abs(features - expected).max(initial=0) < 1e-4, name
        # What an open stream has ready is what streaming/ has ready, and memory stays small.
        assert settings.num_samples(found["open"]) <= len(samples), name
        assert settings.num_samples(found["open"] + 1) > len(samples), name
        assert found["pending"] <= 2 * settings.length_samples


@pytest.mark.parametrize(("sample_rate", "num_mel_bins"), [(8000, 40), (44100, 80)])
def test_features_of_other_rates(values, sample_rate, num_mel_bins):
    """FFTs of 256 and 2048 samples: one ends in radix 2, the other in radix 4."""
    settings = FeatureSettings(sample_rate=sample_rate, num_mel_bins=num_mel_bins)
    samples = make_speech(sample_rate // 2, seed=7, sample_rate=sample_rate)
    call = {"call": "features", "settings": settings.to_json(), "pieces": [samples.tolist()]}
    [found] = values([call | {"reads": 3}])
    features = np.array(found["values"]).reshape(-1, num_mel_bins)
    assert np.abs(features - compute_features(samples, settings)).max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_resampling_equals_ours_under_any_cutting(values, rate):
    samples = make_speech(6000, seed=8, sample_rate=rate)
    cuts = [cut_at_random(samples) for _ in range(3)]
    found = values([{"call": "resample", "inputRate": rate, "pieces": cut} for cut in cuts])
    assert found[0] == found[1] == found[2]
    np.testing.assert_allclose(found[0], resample(samples, rate, 16000), atol=2e-6)


def test_impossible_rates_are_refused(answers):
    rates = [0, 999, 16000.5, 10**9]
    found = answers([{"call": "resample", "inputRate": rate, "pieces": []} for rate in rates])
    assert all(a["kind"] == "AudioError" and "sample rate" in a["error"] for a in found)


def write_wav(samples: np.ndarray, subtype: str, wav_format: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 22050, subtype=subtype, format=wav_format)
    return file.getvalue()


def call_wav(data: bytes) -> dict:
    return {"call": "wav", "base64": base64.b64encode(data).decode()}


@pytest.mark.parametrize("wav_format", ["WAV", "WAVEX"])
def test_wav_files_are_read_as_soundfile_reads_them(values, wav_format):
    subtypes = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]
    files = [write_wav(RNG.uniform(-1, 1, (50, 2)), subtype, wav_format) for subtype in subtypes]
    for data, found in zip(files, values([call_wav(data) for data in files]), strict=True):
        both, rate = soundfile.read(io.BytesIO(data), dtype="float32")
        assert found["sampleRate"] == rate == 22050
        assert np.array_equal(np.float32(found["samples"]), (both[:, 0] + both[:, 1]) / 2)


def test_bad_wav_files_are_refused(answers):
    whole = write_wav(RNG.uniform(-1, 1, 50), "PCM_16")
    a_law = write_wav(RNG.uniform(-1, 1, 50), "ALAW")
    empty = write_wav(np.zeros(0), "PCM_16")
    found = answers([call_wav(data) for data in (whole[:-10], whole[:40], a_law, empty)])
    assert [answer["kind"] for answer in found] == ["AudioError"] * 4
    for answer, reason in zip(
        found, ["truncated", "ends before", "convert", "no sound"], strict=True
    ):
        assert reason in answer["error"]
