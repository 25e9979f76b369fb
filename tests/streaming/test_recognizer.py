import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streaming
from streaming.errors import AudioError, InputError
from tests.streaming.cutting import cut, cuts
from tests.streaming.tiny_bundle import make_speech


def decode(recognizer, pieces, sample_rate=16000):
    """Decodes as a program does that follows sherpa-onnx's loop."""
    stream = recognizer.create_stream()
    for samples in pieces:
        stream.accept_waveform(sample_rate, samples)
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
    stream.input_finished()
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
    return recognizer.get_result_all(stream)


@pytest.fixture(scope="module")
def whole(recognizer, speech):
    result = decode(recognizer, [speech])
    assert len(set(result.tokens)) > 5, "the tiny model should say something"
    return result


@settings(max_examples=40, deadline=None)
@given(points=cuts(32000))
def test_any_cutting_gives_the_same_result(recognizer, speech, whole, points):
    assert decode(recognizer, cut(speech, points)) == whole


@pytest.fixture(scope="module")
def whole_22_khz(bundle):
    recognizer = streaming.open_bundle(bundle)  # int8, the default
    result = decode(recognizer, [make_speech(16000, 0, 22050)], 22050)
    assert len(result.tokens) > 5
    return recognizer, result


@settings(max_examples=25, deadline=None)
@given(points=cuts(16000))
def test_any_cutting_of_22_khz_int8_gives_the_same_result(whole_22_khz, points):
    recognizer, expected = whole_22_khz
    assert decode(recognizer, cut(make_speech(16000, 0, 22050), points), 22050) == expected


def test_the_simple_forms_agree(recognizer, speech, whole):
    partials = list(recognizer.transcribe(np.array_split(speech, 9)))
    assert partials[-1] == whole.text
    assert len(partials) > 3
    stream = recognizer.create_stream()
    assert stream.accept(speech) == partials[-2]
    assert stream.finish() == whole.text
    assert stream.finish() == whole.text


def test_stereo_is_heard_as_its_mean(recognizer, speech, whole):
    stereo = np.stack([1.5 * speech, 0.5 * speech], axis=1)
    assert decode(recognizer, [stereo]).tokens == whole.tokens


@pytest.mark.parametrize("num_samples", [0, 1, 159, 160, 5000])
def test_short_sounds_are_no_trouble(recognizer, num_samples):
    result = decode(recognizer, [make_speech(num_samples)])
    assert len(result.tokens) == len(result.timestamps)
    assert list(recognizer.transcribe([make_speech(num_samples)]))[-1] == result.text


def test_no_sound_no_text(recognizer):
    assert list(recognizer.transcribe([])) == [""]
    assert decode(recognizer, [np.zeros(48000, dtype=np.float32)]).text == ""


@settings(max_examples=25, deadline=None)
@given(num_samples=st.integers(1, 40000))
def test_the_last_word_is_never_lost(recognizer, info, num_samples):
    """Every frame of sound and tail_frames after it are decoded, in whole chunks."""
    stream = recognizer.create_stream()
    stream.accept(make_speech(num_samples))
    stream.finish()
    heard = stream.search.num_frames * info.subsampling
    needed = info.features.num_frames(num_samples) + info.tail_frames
    assert needed <= heard < needed + info.chunk_frames
    assert stream.features.num_ready == 0


def test_silence_after_the_end_adds_nothing_before_it(recognizer, speech, whole):
    longer = decode(recognizer, [speech, np.zeros(48000, dtype=np.float32)])
    until = [t for t in longer.timestamps if t < whole.seconds]
    assert until == whole.timestamps
    assert longer.tokens[: len(until)] == whole.tokens


def test_timestamps_are_frames_times_40_ms(whole):
    frames = np.array(whole.timestamps) / 0.04
    np.testing.assert_allclose(frames, np.round(frames), atol=1e-6)
    assert np.all(np.diff(np.round(frames)) >= 1)  # at most one symbol a frame
    assert whole.timestamps[-1] < whole.seconds


def test_more_symbols_a_frame_when_asked(bundle, recognizer, speech):
    many = streaming.open_bundle(bundle, "fp32", max_symbols_per_frame=3)
    result = decode(many, [speech])
    assert max(np.unique(result.timestamps, return_counts=True)[1]) == 3


def test_ready_when_a_chunk_is_there(recognizer, info):
    stream = recognizer.create_stream()
    samples = make_speech(info.features.num_samples(info.chunk_frames))
    stream.accept_waveform(16000, samples[:-1])
    assert not recognizer.is_ready(stream)
    with pytest.raises(InputError, match="is_ready"):
        recognizer.decode_stream(stream)
    stream.accept_waveform(16000, samples[-1:])
    assert recognizer.is_ready(stream)


def test_a_batch_gives_the_tokens_of_each_alone(recognizer):
    sounds = [make_speech(16000 + 5000 * n, seed=n) for n in range(4)]
    streams = [recognizer.create_stream() for _ in sounds]
    for stream, samples in zip(streams, sounds, strict=True):
        stream.accept_waveform(16000, samples)
        stream.input_finished()
    while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
        recognizer.decode_streams(ready)
    alone = [decode(recognizer, [samples]) for samples in sounds]
    assert [recognizer.get_result_all(stream) for stream in streams] == alone


def test_state_is_of_constant_size(recognizer):
    stream = recognizer.create_stream()
    sizes = set()
    for seed in range(30):
        stream.accept(make_speech(16000, seed))
        sizes.add((*(s.shape for s in stream.state), stream.search.memory[0].shape))
        assert stream.features.num_ready < 32
    assert sizes == {((1, 1, 24), (1, 1, 1), (2,))}
    frames = float(stream.state[1][0, 0, 0])
    assert frames == stream.search.num_frames, "the encoder's own count is carried"


def test_misuse_names_the_fix(recognizer, speech):
    stream = recognizer.create_stream()
    with pytest.raises(AudioError, match="sample 3 is not finite"):
        stream.accept(np.array([0, 0, 0, np.nan]))
    stream.accept_waveform(8000, speech[:10])
    with pytest.raises(AudioError, match="8000 Hz"):
        stream.accept_waveform(16000, speech[:10])
    stream.input_finished()
    with pytest.raises(InputError, match="create another stream"):
        stream.accept_waveform(8000, speech[:10])
    with pytest.raises(InputError, match="twice"):
        recognizer.decode_streams([stream, stream])
