import numpy as np
import pytest
import soundfile

from streaming.audio import check_samples, open_audio, read_audio
from streaming.errors import AudioError


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_reads_wav_and_flac(tmp_path, speech, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, speech, 16000, subtype="PCM_16")
    samples, sample_rate = read_audio(path)
    assert sample_rate == 16000
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, speech, atol=1e-4)


def test_reads_opus(tmp_path, speech):
    path = tmp_path / "a.opus"
    soundfile.write(path, speech, 16000, format="OGG", subtype="OPUS")
    samples, sample_rate = read_audio(path)
    assert abs(len(samples) / sample_rate - 2.0) < 0.01


def test_stereo_is_mixed_down(tmp_path, speech):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([speech, -0.5 * speech], 1), 8000, subtype="FLOAT")
    samples, sample_rate = read_audio(path)
    assert sample_rate == 8000
    np.testing.assert_allclose(samples, 0.25 * speech, atol=1e-7)


def test_one_sample_is_sound(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.ones(1) / 2, 16000)
    samples, _ = read_audio(tmp_path / "a.wav")
    assert samples.tolist() == [0.5]


def test_blocks_add_up_to_the_file(speech_file, speech):
    with open_audio(speech_file) as file:
        assert (file.sample_rate, file.num_samples, file.seconds) == (16000, 32000, 2.0)
        assert np.array_equal(np.concatenate(list(file.blocks(0.123))), speech)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_has_no_size(tmp_path, speech, size):
    path = tmp_path / "a.wav"
    soundfile.write(path, speech, 16000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(data)
    assert len(read_audio(path)[0]) == 32000


def _missing(path, speech):
    pass


def _folder(path, speech):
    path.mkdir()


def _no_bytes(path, speech):
    path.touch()


def _no_samples(path, speech):
    soundfile.write(path, speech[:0], 16000)


def _half_a_wav(path, speech):
    soundfile.write(path, speech, 16000)
    path.write_bytes(path.read_bytes()[:20000])


def _only_a_header(path, speech):
    soundfile.write(path, speech, 16000)
    path.write_bytes(path.read_bytes()[:30])


def _half_a_flac(path, speech):
    soundfile.write(path, speech, 16000, format="FLAC")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _no_sound(path, speech):
    path.write_text("turn on the light")


def _not_a_number(path, speech):
    speech = speech.copy()
    speech[17000] = np.nan
    soundfile.write(path, speech, 16000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_missing, "no such file"),
        (_folder, "no such file"),
        (_no_bytes, "empty"),
        (_no_samples, "no sound"),
        (_half_a_wav, "truncated"),
        (_only_a_header, "truncated"),
        (_half_a_flac, "truncated"),
        (_no_sound, "convert it"),
        (_not_a_number, "sample 17000 is not finite"),
    ],
)
def test_bad_files_name_themselves_and_the_fix(tmp_path, speech, damage, message):
    path = tmp_path / "bad.wav"
    damage(path, speech)
    with pytest.raises(AudioError, match=message) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_samples_of_any_layout():
    stereo = np.array([[0.5, 0.25], [1.0, 0.0], [0.0, -1.0]])
    assert check_samples(stereo).tolist() == [0.375, 0.5, -0.5]
    assert check_samples([]).shape == (0,)
    assert check_samples(np.asfortranarray(stereo)[::2]).tolist() == [0.375, -0.5]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(3, dtype=np.int16), "float32"),
        (np.zeros((2, 2, 2)), "shape"),
        (np.zeros((2, 16000)), "shape"),
        (np.float32(1.0), "shape"),
        ([0.0, np.inf], "sample 1 is not finite"),
        ([0.5, -12000.0], "scale"),
    ],
)
def test_wrong_arrays_are_refused(samples, message):
    with pytest.raises(AudioError, match=message):
        check_samples(samples)
