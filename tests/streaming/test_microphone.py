import os
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile

import streaming
from streaming.errors import AudioError
from streaming.microphone import Loss, list_microphones, open_microphone


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
    """Speaks three blocks into the callback and stops, as a device does that is unplugged."""

    status = None

    def __init__(self, rate, size, device, channels, dtype, callback):
        self.blocks = [np.full((size, channels), 0.1 * n, dtype=dtype) for n in range(3)]
        self.callback = callback

    @property
    def active(self):
        if not self.blocks:
            return False
        self.callback(self.blocks[0], len(self.blocks[0]), None, self.status)
        return bool(self.blocks.pop(0).size)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


class OverflowingStream(FakeStream):
    status = "input overflow"


class SilentStream(FakeStream):
    """One that says it goes on, and never calls back: what ALSA does without its device."""

    active = True


class FloodingStream(FakeStream):
    """Hands over more than anyone reads."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        for _ in range(1000):
            self.callback(self.blocks[1], len(self.blocks[1]), None, None)
        self.blocks = []


DEVICES = [
    {"name": "speakers", "max_input_channels": 0, "default_samplerate": 48000.0},
    {"name": "headset", "max_input_channels": 1, "default_samplerate": 16000.0},
    {"name": "array", "max_input_channels": 4, "default_samplerate": 44100.0},
]


def fake_sounddevice(query_devices, stream=FakeStream):
    module = types.ModuleType("sounddevice")
    module.PortAudioError = type("PortAudioError", (Exception,), {})
    module.InputStream = stream
    module.query_devices = query_devices
    module.default = types.SimpleNamespace(device=[2, 0])
    return module


def record(monkeypatch, stream, loss=None):
    """The blocks of a fake device at 48 kHz, and what ended them."""
    module = fake_sounddevice(lambda device, kind: {"default_samplerate": 48000.0}, stream)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    blocks = []
    with pytest.raises(AudioError) as caught:
        for block in open_microphone("3", loss=loss):
            blocks.append(block)
    return np.concatenate([np.zeros(0), *blocks]), str(caught.value)


def test_records_and_resamples_until_the_device_disappears(monkeypatch):
    heard, why = record(monkeypatch, FakeStream)
    assert 0.14 * 16000 < len(heard) <= 0.15 * 16000
    assert abs(heard[1200] - 0.1) < 0.01
    assert "microphone 3 stopped: plug it in" in why
    assert "--list-devices" in why


def test_a_device_that_falls_silent_has_gone(monkeypatch):
    monkeypatch.setattr("streaming.microphone.GONE_SECONDS", 0.3)
    heard, why = record(monkeypatch, SilentStream)
    assert len(heard) == 0
    assert "stopped" in why


def test_overflows_are_counted_or_logged(monkeypatch, caplog):
    loss = Loss()
    record(monkeypatch, OverflowingStream, loss)
    assert (loss.times, loss.seconds) == (3, 0.0)
    assert not caplog.records
    record(monkeypatch, OverflowingStream)
    assert "input overflow" in caplog.text


def test_what_is_not_read_in_time_is_lost_and_counted(monkeypatch):
    loss = Loss()
    heard, _ = record(monkeypatch, FloodingStream, loss)
    assert len(heard) / 16000 == pytest.approx(30, abs=0.1)
    assert loss.times == 400
    assert loss.seconds == pytest.approx(20)


def test_an_unknown_device_is_named(monkeypatch):
    def query_devices(device, kind):
        raise ValueError(f"No input device matching {device!r}\nDevices: ...")

    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(query_devices))
    with pytest.raises(AudioError, match=r"No input device.*--list-devices") as caught:
        next(open_microphone("blue"))
    assert "\n" not in str(caught.value)


def test_microphones_are_listed(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(lambda: DEVICES))
    assert list_microphones() == [
        "    1  headset, 1 channels, 16000 Hz",
        "*   2  array, 4 channels, 44100 Hz",
    ]
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(lambda: DEVICES[:1]))
    with pytest.raises(AudioError, match="plug one in"):
        list_microphones()


def test_the_example_plays_a_file(bundle, tmp_path, speech):
    path = tmp_path / "a.wav"
    soundfile.write(path, speech[:8000], 16000, subtype="FLOAT")
    command = [sys.executable, "examples/microphone.py", str(bundle), str(path)]
    environment = os.environ | {"PYTHONPATH": "."}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    expected = streaming.open_bundle(bundle).transcribe([speech[:8000]])
    assert done.stdout.decode().rsplit("\r", 1)[-1].strip() == list(expected)[-1] != ""
