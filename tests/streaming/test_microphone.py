import os
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile

import streaming
from streaming.errors import AudioError
from streaming.microphone import open_microphone


def test_a_file_plays_as_the_device(speech_file, speech):
    blocks = list(open_microphone(str(speech_file), realtime=False))
    assert len(blocks) > 30
    assert np.array_equal(np.concatenate(blocks), speech)


def test_a_file_of_another_rate_is_resampled(tmp_path, speech):
    path = tmp_path / "a.wav"
    soundfile.write(path, speech[:8000], 8000)
    assert sum(map(len, open_microphone(str(path), realtime=False))) == 16000


def test_a_missing_file_is_named():
    with pytest.raises(AudioError, match=r"talk\.wav: no such file"):
        next(open_microphone("talk.wav"))


def test_without_portaudio(monkeypatch):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(AudioError, match=r"PortAudio.*sound file"):
        next(open_microphone())


class FakeStream:
    """Speaks three stereo-less blocks into the callback and stops."""

    def __init__(self, rate, size, device, channels, dtype, callback):
        self.blocks = [np.full((size, channels), 0.1 * n, dtype=dtype) for n in range(3)]
        self.callback = callback

    @property
    def active(self):
        if not self.blocks:
            return False
        self.callback(self.blocks[0], len(self.blocks[0]), None, None)
        return bool(self.blocks.pop(0).size)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


def fake_sounddevice(query_devices):
    module = types.ModuleType("sounddevice")
    module.PortAudioError = type("PortAudioError", (Exception,), {})
    module.InputStream = FakeStream
    module.query_devices = query_devices
    return module


def test_records_and_resamples(monkeypatch):
    module = fake_sounddevice(lambda device, kind: {"default_samplerate": 48000.0})
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    heard = np.concatenate(list(open_microphone("3")))
    assert 0.14 * 16000 < len(heard) <= 0.15 * 16000
    assert abs(heard[1200] - 0.1) < 0.01


def test_an_unknown_device_is_named(monkeypatch):
    def query_devices(device, kind):
        raise ValueError(f"No input device matching {device!r}\nDevices: ...")

    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(query_devices))
    with pytest.raises(AudioError, match=r"No input device.*python -m sounddevice") as caught:
        next(open_microphone("blue"))
    assert "\n" not in str(caught.value)


def test_the_example_plays_a_file(bundle, tmp_path, speech):
    path = tmp_path / "a.wav"
    soundfile.write(path, speech[:8000], 16000, subtype="FLOAT")
    command = [sys.executable, "examples/microphone.py", str(bundle), str(path)]
    environment = os.environ | {"PYTHONPATH": "."}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    expected = streaming.open_bundle(bundle).transcribe([speech[:8000]])
    assert done.stdout.decode().rsplit("\r", 1)[-1].strip() == list(expected)[-1] != ""
