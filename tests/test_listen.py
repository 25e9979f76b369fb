import io

import numpy as np
import pytest
import soundfile

import streaming
from compress.listen import ERASE_LINE, listen, show_utterances
from streaming import InputError
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


def test_partials_redraw_in_place_on_a_terminal(bundle, talk):
    plain, terminal = io.StringIO(), Terminal()
    listen(bundle, talk, plain, realtime=False)
    listen(bundle, talk, terminal, realtime=False)
    drawn = terminal.getvalue()
    assert drawn.count("\n") == 2
    assert drawn.count(ERASE_LINE) > 10
    final = [line.split(ERASE_LINE)[-1] for line in drawn.split("\n")[:-1]]
    assert final == plain.getvalue().splitlines()


def test_partials_never_wrap(bundle, talk, monkeypatch):
    monkeypatch.setenv("COLUMNS", "11")
    terminal = Terminal()
    listen(bundle, talk, terminal, realtime=False)
    partials = terminal.getvalue().split("\n")[0].split(ERASE_LINE)[1:-1]
    assert max(map(len, partials)) == 10


def test_ctrl_c_writes_what_was_heard(bundle):
    speech = make_speech(24000, 1)

    def blocks():
        yield speech
        raise KeyboardInterrupt

    recognizer = streaming.open_bundle(bundle)
    out = io.StringIO()
    show_utterances(recognizer, blocks(), out)
    assert out.getvalue() == list(recognizer.transcribe([speech]))[-1] + "\n"


def test_bad_input_is_named(bundle, tmp_path, capsys):
    with pytest.raises(InputError, match="no such file"):
        listen(bundle, "gone.wav")
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="no such bundle"):
        listen(tmp_path / "gone")
