import io
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import streaming
from compress import transcribe
from compress.subtitles import build_cues, format_time, write_srt, write_vtt
from compress.transcribe import find_audio, transcribe_files
from streaming import DecodingSettings, InputError, Result
from tests.streaming.tiny_bundle import build_bundle, make_speech


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def sounds(tmp_path):
    """Three files: 16 kHz, 8 kHz, stereo."""
    folder = tmp_path / "sounds"
    (folder / "deep").mkdir(parents=True)
    soundfile.write(folder / "a.wav", make_speech(16000, 1), 16000)
    soundfile.write(folder / "b.flac", make_speech(8000, 2, 8000), 8000)
    stereo = np.stack([make_speech(12000, 3)] * 2, axis=1)
    soundfile.write(folder / "deep" / "c.wav", stereo, 16000)
    (folder / "notes.txt").write_text("no sound")
    return folder


def run(*arguments, **settings):
    out = io.StringIO()
    transcribe_files(*arguments, out=out, **settings)
    return out.getvalue()


def test_jsonl_has_one_line_a_file_in_order(bundle, sounds):
    files = [str(sounds / "b.flac"), str(sounds / "a.wav")]
    rows = [json.loads(line) for line in run(bundle, files, "jsonl").splitlines()]
    assert [row["file"] for row in rows] == files
    assert [row["seconds"] for row in rows] == [1.0, 1.0]
    for row in rows:
        assert list(row) == ["file", "text", "tokens", "timestamps", "seconds"]
        assert "".join(row["tokens"]).strip() == row["text"]
        assert len(row["timestamps"]) == len(row["tokens"])


def test_jsonl_equals_the_recogniser(bundle, sounds):
    samples, _ = soundfile.read(sounds / "a.wav", dtype="float32")
    row = json.loads(run(bundle, [sounds / "a.wav"], "jsonl"))
    assert row["text"] == list(streaming.open_bundle(bundle).transcribe([samples]))[-1]


def test_words_are_an_extra_of_jsonl(bundle, sounds):
    row = json.loads(run(bundle, [sounds / "a.wav"], "jsonl", words=True))
    plain = json.loads(run(bundle, [sounds / "a.wav"], "jsonl"))
    words = row.pop("words")
    assert row == plain
    assert " ".join(word["text"] for word in words) == row["text"] != ""
    assert list(words[0]) == ["text", "start_seconds", "end_seconds", "confidence"]
    with pytest.raises(InputError, match="--format jsonl"):
        run(bundle, [sounds / "a.wav"], "srt", words=True)


def test_the_search_is_that_of_the_settings(bundle, sounds):
    texts = {run(bundle, [sounds / "a.wav"])}
    for decoding in (
        DecodingSettings("modified_beam_search"),
        DecodingSettings(hotwords=["coz"], hotwords_score=20.0),
        DecodingSettings(blank_penalty=5.0),
    ):
        samples, _ = soundfile.read(sounds / "a.wav", dtype="float32")
        text = run(bundle, [sounds / "a.wav"], decoding=decoding)
        recognizer = streaming.open_bundle(bundle, decoding=decoding)
        assert text == [*recognizer.transcribe([samples])][-1] + "\n"
        texts.add(text)
    assert len(texts) >= 3


def test_text_of_one_and_of_several(bundle, sounds):
    one = run(bundle, [sounds / "a.wav"])
    several = run(bundle, [sounds])
    assert several.splitlines()[0] == f"{sounds / 'a.wav'}: {one.strip()}"
    assert len(several.splitlines()) == 3


def test_folders_and_globs(sounds):
    assert find_audio([sounds]) == [
        sounds / "a.wav",
        sounds / "b.flac",
        sounds / "deep" / "c.wav",
    ]
    assert find_audio([f"{sounds}/**/*.wav"]) == [sounds / "a.wav", sounds / "deep" / "c.wav"]


def test_a_name_with_brackets_is_a_name(sounds):
    (sounds / "a.wav").rename(sounds / "a[1].wav")
    assert find_audio([f"{sounds}/a[1].wav"]) == [sounds / "a[1].wav"]


@pytest.mark.parametrize("files", [[], ["nothing*.wav"]])
def test_nothing_to_do(bundle, files):
    with pytest.raises(InputError):
        run(bundle, files)


def test_an_empty_folder(bundle, tmp_path):
    with pytest.raises(InputError, match="no sound files in this folder"):
        run(bundle, [tmp_path])


def test_unknown_format(bundle, sounds):
    with pytest.raises(InputError, match="text, jsonl, srt, vtt"):
        run(bundle, [sounds], "xml")
    with pytest.raises(InputError, match="srt holds one file"):
        run(bundle, [sounds], "srt")


def test_a_bad_file_spares_the_others(bundle, sounds):
    (sounds / "b.flac").write_bytes(b"")
    out = io.StringIO()
    with pytest.raises(InputError, match=r"b\.flac: the file is empty"):
        transcribe_files(bundle, [sounds], "jsonl", out)
    assert len(out.getvalue().splitlines()) == 2
    with pytest.raises(InputError, match=r"2 of 4 files.*b\.flac"):
        run(bundle, [sounds, "gone.wav"])


def test_the_bar_waits_and_stays_off_standard_output(bundle, sounds, monkeypatch, capsys):
    transcribe_files(bundle, [sounds / "a.wav"])
    quiet = capsys.readouterr()
    assert quiet.err == ""
    monkeypatch.setattr(transcribe, "BAR_AFTER_SECONDS", -1.0)
    transcribe_files(bundle, [sounds / "a.wav"])
    assert capsys.readouterr().out == quiet.out


def pipe(monkeypatch, data):
    """Makes `data` the standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize(("encoding", "scale"), [("s16le", 32768), ("f32le", 1)])
def test_standard_input(bundle, monkeypatch, tmp_path, encoding, scale):
    samples = np.round(make_speech(24000, 1) * 32768) / 32768
    name = "<i2" if encoding == "s16le" else "<f4"
    pipe(monkeypatch, (samples * scale).astype(name).tobytes())
    row = json.loads(run(bundle, ["-"], "jsonl", sample_rate=16000, encoding=encoding))
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    expected = json.loads(run(bundle, [tmp_path / "a.wav"], "jsonl"))
    assert row == expected | {"file": "-"}
    assert row["text"]


@pytest.mark.parametrize(
    ("data", "settings", "fix"),
    [
        (b"", {"sample_rate": 16000}, "pipe raw PCM"),
        (b"abc", {"sample_rate": 16000}, "2 bytes a sample"),
        (b"ab", {}, "--sample-rate 16000"),
        (b"ab", {"sample_rate": 0}, "give the rate"),
        (b"ab", {"sample_rate": 16000, "encoding": "mp3"}, "s16le or f32le"),
    ],
)
def test_standard_input_that_is_wrong(bundle, monkeypatch, data, settings, fix):
    pipe(monkeypatch, data)
    with pytest.raises(InputError, match=fix):
        run(bundle, ["-"], **settings)


def test_a_rate_belongs_to_standard_input(bundle, sounds):
    with pytest.raises(InputError, match="leave it out"):
        run(bundle, [sounds], sample_rate=16000)


RESULT = Result(
    text="turn on stop",
    tokens=[" tu", "rn", " o", "n", " st", "op"],
    timestamps=[0.2, 0.4, 0.6, 0.72, 3.0, 3.2],
    seconds=4.0,
)


def test_srt():
    out = io.StringIO()
    write_srt(out, RESULT)
    assert out.getvalue() == (
        "1\n00:00:00,200 --> 00:00:01,120\nturn on\n\n2\n00:00:03,000 --> 00:00:03,600\nstop\n\n"
    )


def test_vtt():
    out = io.StringIO()
    write_vtt(out, RESULT)
    assert out.getvalue().startswith("WEBVTT\n\n00:00:00.200 --> 00:00:01.120\nturn on\n\n")


def test_no_words_no_cues(bundle, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    assert run(bundle, [tmp_path / "silence.wav"], "srt") == ""
    assert run(bundle, [tmp_path / "silence.wav"], "vtt") == "WEBVTT\n\n"


def test_long_speech_is_cut_into_cues():
    times = [0.3 * n for n in range(100)]
    cues = build_cues(Result("", [" word"] * 100, times, 30.0))
    assert len(cues) > 4
    assert all(cue.end - cue.start <= 6.0 and len(cue.text) <= 84 for cue in cues)
    assert all(a.end <= b.start for a, b in itertools.pairwise(cues))


def test_times():
    assert format_time(3661.5, ",") == "01:01:01,500"
    assert format_time(59.9996, ".") == "00:01:00.000"


def test_imports_no_torch():
    code = "import sys, compress.transcribe, compress.listen; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
