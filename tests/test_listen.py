import io

import numpy as np
import pytest
import soundfile

import streaming
from compress.listen import listen, show_utterances
from compress.live import ERASE_REST, LiveLine, draw_meter, fit_end
from streaming import GateSettings, InputError
from streaming.errors import AudioError
from streaming.microphone import Loss
from tests.streaming.tiny_bundle import build_bundle, make_speech


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def talk(tmp_path):
    """Speech, 2.5 s of silence, speech: two utterances."""
    silence = np.zeros(40000, dtype=np.float32)
    samples = np.concatenate([make_speech(24000, 1), silence, make_speech(16000, 2)])
    soundfile.write(tmp_path / "talk.wav", samples, 16000, subtype="FLOAT")
    return str(tmp_path / "talk.wav")


def test_a_line_for_each_utterance(bundle, talk):
    out = io.StringIO()
    listen(bundle, talk, out, realtime=False)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert all(lines)
    assert "\x1b" not in out.getvalue()


def screen(drawn):
    """The lines a terminal shows after `drawn`: \\r goes back, ERASE_REST clears to the right."""
    lines = []
    for row in drawn.split("\n"):
        cells = ""
        for part in row.split("\r"):
            text, erase, rest = part.partition(ERASE_REST)
            assert not rest
            cells = text if erase else text + cells[len(text) :]
        lines.append(cells)
    return lines


def test_partials_redraw_in_place_on_a_terminal(bundle, talk):
    plain, terminal = io.StringIO(), Terminal()
    listen(bundle, talk, plain, realtime=False)
    listen(bundle, talk, terminal, realtime=False)
    drawn = terminal.getvalue()
    assert drawn.count("\n") == 2
    assert drawn.count(ERASE_REST) > 10
    assert screen(drawn) == [*plain.getvalue().splitlines(), ""]


def test_each_redraw_is_one_write(bundle, talk, monkeypatch):
    writes = []

    class Counting(Terminal):
        def write(self, text):
            writes.append(text)

    listen(bundle, talk, Counting(), realtime=False)
    assert all(text.startswith("\r") for text in writes)
    assert all(text.rstrip("\n").endswith(ERASE_REST) for text in writes)


@pytest.mark.parametrize("columns", [5, 11, 40, 60])
def test_partials_never_wrap(bundle, talk, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    listen(bundle, talk, terminal, realtime=False)
    partials = terminal.getvalue().split("\n")[0].split(ERASE_REST)[:-2]
    longest = max(len(partial.removeprefix("\r")) for partial in partials)
    assert longest == columns - 1 if columns < 12 else longest < columns
    assert ("#" in partials[0]) == (columns >= 40)


def test_wide_characters_take_two_cells():
    assert fit_end("東京タワー", 5) == "ワー"
    assert fit_end("abc東", 4) == "bc東"
    assert fit_end("cafe\u0301", 4) == "cafe\u0301"
    assert fit_end("abc", 0) == ""


@pytest.mark.parametrize(
    ("peak", "meter"),
    [(0.0, "-" * 10), (0.0005, "-" * 10), (0.0316, "#####-----"), (1.0, "#" * 10), (9.0, "#" * 10)],
)
def test_the_meter(peak, meter):
    assert draw_meter(np.array([0, -peak, peak / 2], dtype=np.float32)) == meter
    assert len(draw_meter(np.zeros(0, dtype=np.float32))) == 10


def test_the_meter_moves_ten_times_a_second():
    terminal, times = Terminal(), iter(n / 50 for n in range(50))
    line = LiveLine(terminal, Loss(), clock=lambda: next(times))
    for n in range(50):
        line.show("words", np.full(10, n / 50, dtype=np.float32))
    assert 9 <= terminal.getvalue().count("\r") <= 11


def test_lost_sound_is_shown():
    terminal, loss = Terminal(), Loss()
    LiveLine(terminal, loss).show("words", np.ones(3, dtype=np.float32))
    loss.times = 3
    LiveLine(terminal, loss).show("words", np.ones(3, dtype=np.float32))
    assert screen(terminal.getvalue()) == ["########## lost 3x words"]


def blocks_that_raise(samples, error):
    yield samples
    raise error


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), AudioError("microphone 3 stopped: plug it")]
)
def test_however_it_ends_what_was_heard_is_written(bundle, error):
    speech = make_speech(24000, 1)
    recognizer = streaming.open_bundle(bundle)
    out = io.StringIO()
    blocks = blocks_that_raise(speech, error)
    if isinstance(error, AudioError):
        with pytest.raises(AudioError, match="plug it"):
            show_utterances(recognizer, blocks, LiveLine(out, Loss()))
    else:
        show_utterances(recognizer, blocks, LiveLine(out, Loss()))
    assert out.getvalue() == list(recognizer.transcribe([speech]))[-1] + "\n"


def test_losses_are_reported_at_the_end(bundle, monkeypatch, capsys):
    def lossy(device, rate, realtime, loss):
        yield make_speech(16000, 1)
        loss.times += 2

    monkeypatch.setattr("compress.listen.open_microphone", lossy)
    listen(bundle, out=io.StringIO())
    assert "lost sound 2 times" in capsys.readouterr().err


def test_the_gate_hears_the_same(bundle, tmp_path):
    pause = np.zeros(16000 * 9, dtype=np.float32)
    samples = np.concatenate([make_speech(24000, 1), pause, make_speech(16000, 5)])
    talk = str(tmp_path / "pause.wav")
    soundfile.write(talk, samples, 16000, subtype="FLOAT")
    plain, gated = io.StringIO(), io.StringIO()
    listen(bundle, talk, plain, precision="fp32", realtime=False)
    listen(bundle, talk, gated, precision="fp32", realtime=False, gate=GateSettings())
    assert gated.getvalue() == plain.getvalue()


def test_bad_input_is_named(bundle, tmp_path, capsys):
    with pytest.raises(InputError, match="no such file"):
        listen(bundle, "gone.wav")
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="no such bundle"):
        listen(tmp_path / "gone")
