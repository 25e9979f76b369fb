"""Delays, by a recogniser that follows a script and a clock that stands still."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from compress import latency
from compress.bench import bench_bundle, to_lines
from compress.cli import run_app
from compress.latency import SpokenWord, measure_delays
from streaming import InputError, Result
from tests.streaming.tiny_bundle import build_bundle

RATE, CHUNK, FRAME_SECONDS = 16000, 32, 0.04  # a chunk is 8 frames of 40 ms: 0.32 s


class Scripted:
    """Emits (frame, piece) of its script once the chunk with that frame is decoded."""

    def __init__(self, script):
        self.script = script
        features = SimpleNamespace(sample_rate=RATE)
        self.info = SimpleNamespace(features=features, frame_seconds=FRAME_SECONDS)

    def create_stream(self):
        stream = SimpleNamespace(num_samples=0, search=SimpleNamespace(num_frames=0))
        stream.accept_waveform = lambda rate, samples: self.add(stream, samples)
        stream.accept = lambda samples: self.add(stream, samples)
        stream.finish = lambda: None
        return stream

    def add(self, stream, samples):
        stream.num_samples += len(samples)

    def is_ready(self, stream):
        return stream.num_samples >= (stream.search.num_frames + 8) * RATE * FRAME_SECONDS

    def decode_stream(self, stream):
        stream.search.num_frames += 8

    def pieces(self, stream):
        return [(f, piece) for f, piece in self.script if f < stream.search.num_frames]

    def get_result(self, stream):
        return "".join(piece for _, piece in self.pieces(stream)).strip()

    def get_result_all(self, stream):
        found = self.pieces(stream)
        times = [round(f * FRAME_SECONDS, 3) for f, _ in found]
        return Result(self.get_result(stream), [piece for _, piece in found], times, 0.0)


@pytest.fixture(autouse=True)
def still(monkeypatch):
    monkeypatch.setattr(latency.time, "perf_counter", lambda: 0.0)


WORDS = [SpokenWord("turn", 0.1, 0.3), SpokenWord("on", 0.35, 0.6), SpokenWord("it", 0.7, 1.0)]
SOUND = np.zeros(2 * RATE, dtype=np.float32)


def test_delays_of_a_script():
    script = [(8, " tur"), (9, "n"), (15, " on"), (26, " it")]
    delays = measure_delays(Scripted(script), [(SOUND, WORDS)])
    # Chunks end at 0.32, 0.64, 0.96, 1.28; pieces at tenths, so they are decoded at the next one.
    assert delays.first_text == pytest.approx([1000 * (0.7 - 0.1)])
    assert delays.emission == pytest.approx([100.0, 40.0, 80.0])  # ends of frames 9, 15 and 26
    assert delays.word == pytest.approx([400.0, 100.0, 300.0])  # seen at 0.7, 0.7 and 1.3
    assert delays.last_word == pytest.approx([300.0])
    assert delays.tail == pytest.approx([80.0])
    assert delays.finish == [0.0]
    assert (delays.num_words, delays.num_missed) == (3, 0)


def test_a_wrong_word_has_no_delay_and_is_counted():
    script = [(9, " turn"), (15, " off"), (26, " it")]
    delays = measure_delays(Scripted(script), [(SOUND, WORDS)])
    assert delays.emission == pytest.approx([100.0, 80.0])
    assert (delays.num_words, delays.num_missed) == (3, 1)


def test_a_model_that_says_nothing():
    summary = measure_delays(Scripted([]), [(SOUND, WORDS)]).summary()
    assert summary["first_text"] == summary["word"] == {"cases": 0}
    assert summary["num_missed"] == 3


def test_the_sound_is_cut_after_the_last_word():
    late = [(9, " turn"), (15, " on"), (26, " it"), (60, " again")]
    heard = measure_delays(Scripted(late), [(SOUND, WORDS)])
    assert heard.last_word[0] > 1000, "what is said into the silence is late text"


def test_work_adds_up(monkeypatch):
    """Chunks of 0.5 s of work: each waits for the one before, and text comes ever later."""
    clock = iter(range(10**6))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock) * 0.5)
    delays = measure_delays(Scripted([(0, " turn"), (26, " it")]), [(SOUND, WORDS)])
    assert set(delays.chunk) == {500.0}
    assert delays.first_text == pytest.approx([1000 * (0.4 + 0.5 - 0.1)])
    assert delays.last_word == pytest.approx([1000 * (0.4 + 4 * 0.5 - 1.0)])  # the fourth chunk


def test_no_words_no_delays():
    with pytest.raises(InputError, match="word alignment"):
        measure_delays(Scripted([]), [(SOUND, [])])


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    bundle = build_bundle(tmp_path / "bundle")
    assert run_app(["bench", str(bundle), "--num", "2", "--json", str(tmp_path / "b.json")]) == 0
    found = json.loads((tmp_path / "b.json").read_text())
    figures = found["sets"]["synthetic/test"]
    assert figures["delays_ms"]["num_words"] > 2
    assert figures["delays_ms"]["chunk"]["cases"] > 10
    assert 0 < figures["rtf"] < 1
    printed = capsys.readouterr().out
    assert printed.splitlines() == to_lines(found)
    assert run_app(["bench", str(tmp_path), "--num", "2"]) == 2


def test_data_without_times_has_speed_and_no_delays(tmp_path, monkeypatch):
    monkeypatch.undo()
    soundfile = pytest.importorskip("soundfile")
    pack = tmp_path / "pack"
    pack.mkdir()
    for name in "abcdefghijkl":
        soundfile.write(pack / f"{name}.wav", np.zeros(RATE, dtype=np.float32), RATE)
        (pack / f"{name}.txt").write_text("turn on\n")
    found = bench_bundle(build_bundle(tmp_path / "bundle"), [str(pack)], "test", 2)
    assert all("delays_ms" not in figures for figures in found["sets"].values())
    assert "no times of words" in "\n".join(to_lines(found))
