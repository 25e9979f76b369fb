import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import streaming
from compress import measure
from compress.measure import decode_bundle, measure_alone
from streaming import InputError
from tests.streaming.tiny_bundle import C, build_bundle, make_speech


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def utterances():
    lengths = [16000, 5601, 24800]
    return [(f"u{n}", make_speech(length, n), "some text") for n, length in enumerate(lengths)]


@pytest.fixture(scope="module")
def decoding(bundle, utterances):
    return decode_bundle(bundle, utterances, "int8")


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_text_is_the_recognisers(bundle, utterances, precision):
    recognizer = streaming.open_bundle(bundle, precision)
    decoding = decode_bundle(bundle, utterances, precision)
    for (_, samples, _), text, tokens in zip(
        utterances, decoding.texts, decoding.tokens, strict=True
    ):
        stream = recognizer.create_stream()
        stream.accept(samples)
        assert text == stream.finish()
        assert tokens == recognizer.get_result_all(stream).tokens
    assert any(decoding.texts)


def test_every_chunk_is_timed_once(decoding, utterances):
    """16000 samples are 100 frames, 32 more of tail: 5 chunks of 32, and so on."""
    frames = [round(len(samples) / 160) + 32 for _, samples, _ in utterances]
    assert len(decoding.chunk_ms) == sum(-(-count // C) for count in frames)
    assert decoding.seconds_audio == pytest.approx(46401 / 16000)
    busy_ms = 1000 * decoding.rtf * decoding.seconds_audio
    assert 0 < sum(decoding.chunk_ms) <= busy_ms


def test_percentiles(decoding):
    times = dataclasses.replace(decoding, chunk_ms=[float(n) for n in range(1, 102)])
    assert times.percentiles() == {"p50": 51.0, "p95": 96.0}


def test_memory_is_not_this_process(bundle, utterances):
    """A process forked from a large one inherits its ru_maxrss; what is measured must not."""
    code = (
        "import sys, numpy as np\n"
        "from compress.measure import measure_alone\n"
        "ballast = np.ones(500_000_000 // 8)\n"
        "load_ms, peak_rss_mb = measure_alone(sys.argv[1], np.zeros(8000, np.float32))\n"
        "assert 'torch' not in sys.modules\n"
        "print(peak_rss_mb)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, bundle], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 20 < float(done.stdout) < 300


def test_loading_is_timed(decoding):
    assert 0 < decoding.load_ms < 60_000


def test_a_failing_process_says_why(bundle):
    with pytest.raises(RuntimeError, match="no precision 'int3'"):
        measure_alone(bundle, np.zeros(8000, np.float32), "int3")


def test_no_audio(bundle):
    with pytest.raises(InputError, match="no audio to decode"):
        decode_bundle(bundle, [])
    with pytest.raises(InputError, match="no audio to decode"):
        decode_bundle(bundle, [("a", np.zeros(0, np.float32), "")])


def test_an_empty_utterance_among_others_has_no_text(bundle, utterances):
    decoding = decode_bundle(bundle, [("a", np.zeros(0, np.float32), ""), utterances[0]])
    assert decoding.texts[0] == ""
    assert decoding.texts[1]


def test_bad_samples_name_the_utterance(bundle):
    with pytest.raises(InputError, match="utterance odd: "):
        decode_bundle(bundle, [("odd", np.full(8000, np.nan, np.float32), "x")])


def test_a_bar_for_long_audio(bundle, utterances, monkeypatch, capsys):
    decode_bundle(bundle, utterances)
    assert capsys.readouterr().err == ""
    shown = []
    monkeypatch.setattr(measure, "track", lambda items, *about: shown.append(about) or items)
    monkeypatch.setattr(measure, "BAR_FROM_SECONDS", 1.0)
    decode_bundle(bundle, utterances)
    assert shown == [("decoding the bundle", 3)]
