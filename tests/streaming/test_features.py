import kaldi_native_fbank as knf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.errors import InputError
from streaming.features import (
    SILENCE,
    FeatureSettings,
    FeatureStream,
    compute_features,
    preset_settings,
)
from tests.streaming.cutting import cut, cuts
from tests.streaming.tiny_bundle import make_speech

SETTINGS = FeatureSettings()


def kaldi_features(samples: np.ndarray) -> np.ndarray:
    """The oracle: kaldi-native-fbank with sherpa-onnx's settings, written out on its own."""
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = 16000
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.low_freq = 20
    options.mel_opts.high_freq = -400
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(16000, samples.tolist())
    fbank.input_finished()
    return np.array([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])


def nemo_features(samples: np.ndarray) -> np.ndarray:
    """The same with sherpa-onnx's settings for its NeMo family."""
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = 16000
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.frame_opts.window_type = "hann"
    options.frame_opts.remove_dc_offset = False
    options.mel_opts.num_bins = 80
    options.mel_opts.low_freq = 0
    options.mel_opts.high_freq = 8000
    options.mel_opts.is_librosa = True
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(16000, samples.tolist())
    fbank.input_finished()
    return np.array([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])


def test_nemo_preset_equals_kaldi_native_fbank_exactly(speech):
    settings = preset_settings("nemo")
    found = compute_features(speech, settings)
    assert np.array_equal(found, nemo_features(speech))
    assert np.abs(found - compute_features(speech, SETTINGS)).mean() > 0.5, "another scale"
    assert FeatureSettings.from_json(settings.to_json()) == settings


def test_nemo_preset_gives_the_same_silence():
    features = compute_features(np.zeros(1600, dtype=np.float32), preset_settings("nemo"))
    assert np.all(features == np.float32(SILENCE))


def test_unknown_preset_is_refused():
    with pytest.raises(InputError, match="use kaldi or nemo"):
        preset_settings("whisper")


def test_equal_kaldi_native_fbank_exactly(speech):
    assert np.array_equal(compute_features(speech, SETTINGS), kaldi_features(speech))


@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(st.integers(0, 900), max_size=12), reads=st.integers(1, 9))
def test_equal_under_any_cutting(speech, pieces, reads):
    stream = FeatureStream(SETTINGS)
    frames, start = [], 0
    for size in [*pieces, 8000 - min(8000, sum(pieces))]:
        stream.accept(speech[:8000][start : start + size])
        start += size
        while (block := stream.read(reads)) is not None:
            frames.append(block)
    stream.finish()
    frames.append(stream.read(stream.num_ready))
    assert np.array_equal(np.concatenate(frames), compute_features(speech[:8000], SETTINGS))


@pytest.mark.parametrize("num_samples", [0, 1, 79, 80, 81, 239, 240, 279, 280, 281, 4567])
def test_frame_counts(num_samples):
    stream = FeatureStream(SETTINGS)
    stream.accept(np.zeros(num_samples, dtype=np.float32))
    ready = stream.num_ready
    assert SETTINGS.num_samples(ready) <= num_samples < SETTINGS.num_samples(ready + 1)
    stream.finish()
    assert stream.num_ready == SETTINGS.num_frames(num_samples)


def test_silence_is_what_zero_samples_give():
    features = compute_features(np.zeros(1600, dtype=np.float32), SETTINGS)
    assert features.shape == (10, 80)
    assert np.all(features == np.float32(SILENCE))


def test_tail_is_zero_samples_appended(speech):
    padded = np.concatenate([speech, np.zeros(5 * 160, dtype=np.float32)])
    tailed = compute_features(speech, SETTINGS, tail_frames=5)
    assert np.array_equal(tailed, compute_features(padded, SETTINGS))
    assert len(tailed) == SETTINGS.num_frames(len(speech)) + 5


def test_no_samples_no_frames():
    assert compute_features(np.zeros(0, dtype=np.float32), SETTINGS).shape == (0, 80)


def test_settings_survive_json():
    assert FeatureSettings.from_json(SETTINGS.to_json()) == SETTINGS


@pytest.mark.parametrize(
    "change",
    [
        {"preset": "nemo"},  # with kaldi's window
        {"preset": "mel"},
        {"num_mel_bins": "80"},
        {"colour": 1},
        {"sample_rate": 1},
    ],
)
def test_wrong_settings_are_refused(change):
    with pytest.raises(InputError):
        FeatureSettings.from_json(SETTINGS.to_json() | change)


@settings(max_examples=30, deadline=None)
@given(
    rate=st.sampled_from([8000, 11025, 16000, 22050, 48000]),
    frames=st.integers(0, 40),
    offset=st.integers(-2, 2),
    bins=st.sampled_from([23, 80]),
)
def test_frames_that_are_ready_are_those_that_kaldi_counts(rate, frames, offset, bins):
    settings = FeatureSettings(sample_rate=rate, num_mel_bins=bins)
    num_samples = max(0, settings.num_samples(frames) + offset)
    fbank = knf.OnlineFbank(settings.build_options())
    stream = FeatureStream(settings)
    samples = np.zeros(num_samples, dtype=np.float32)
    fbank.accept_waveform(rate, samples.tolist())
    stream.accept(samples)
    assert stream.num_ready == fbank.num_frames_ready
    stream.finish()
    fbank.input_finished()
    assert stream.num_ready == fbank.num_frames_ready
    assert stream.read(stream.num_ready).shape == (fbank.num_frames_ready, bins)


@settings(max_examples=60, deadline=None)
@given(points=cuts(16000), takes=st.lists(st.integers(0, 40), min_size=1, max_size=9))
def test_a_stream_that_is_saved_and_restored_gives_the_same_frames(points, takes):
    speech = make_speech(16000, 4)
    stream, frames = FeatureStream(SETTINGS), []
    for number, samples in enumerate(cut(speech, points)):
        stream.accept(samples)
        frames.append(stream.read(min(stream.num_ready, takes[number % len(takes)])))
        stream = FeatureStream.restore(SETTINGS, stream.save())
    stream.finish()
    stream = FeatureStream.restore(SETTINGS, stream.save())
    frames.append(stream.read(stream.num_ready))
    assert np.array_equal(np.concatenate(frames), kaldi_features(speech))


def test_the_callers_array_may_change_after_it_was_accepted():
    speech = make_speech(4000, 2)
    stream, buffer = FeatureStream(SETTINGS), speech.copy()
    stream.accept(buffer)
    buffer[:] = 9
    stream.finish()
    assert np.array_equal(stream.read(stream.num_ready), kaldi_features(speech))
