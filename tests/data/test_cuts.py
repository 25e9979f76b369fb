"""Every format on tiny folders made here, every refusal with its line, audio of any kind."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from compress.data.cuts import (
    assign_splits,
    data_name,
    normalise_text,
    read_data,
    read_samples,
    split_name,
    splits_in,
)
from streaming.errors import AudioError, InputError

SHARED = Path(__file__).parents[2] / "../shared/data"


def write_tone(path: Path, seconds: float = 0.5, sample_rate: int = 16_000, channels: int = 1):
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    tone = 0.5 * np.sin(2 * np.pi * 440 * times)
    soundfile.write(path, np.tile(tone[:, None], channels), sample_rate)
    return path


def write_manifest(folder: Path, *lines: dict) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def summary(cuts):
    """(id, text, speaker, split) of each cut."""
    rows = [(c.id, c.supervisions[0].text, c.supervisions[0].speaker, split_name(c)) for c in cuts]
    return sorted(rows)


def make_nemo(folder):
    write_tone(folder / "audio/a.wav")
    write_manifest(
        folder,
        {
            "audio_filepath": "audio/a.wav",
            "text": "Yes,  no!",
            "duration": 0.5,
            "id": "a",
            "speaker": "s1",
            "split": "valid",
        },
    )
    return folder, [("a", "yes no", "s1", "dev")]


def make_librispeech(folder):
    chapter = folder / "LibriSpeech/test-clean/61/70968"
    write_tone(chapter / "61-70968-0000.flac")
    (chapter / "61-70968.trans.txt").write_text("61-70968-0000 HE BEGAN\n")
    return folder, [("61-70968-0000", "he began", "61", "test")]


def make_kaldi(folder):
    write_tone(folder / "rec.wav", seconds=2)
    (folder / "wav.scp").write_text("rec rec.wav\n")
    (folder / "segments").write_text("u1 rec 0.0 0.5\nu2 rec 0.5 2.0\n")
    (folder / "text").write_text("u1 one\nu2 two\n")
    (folder / "utt2spk").write_text("u1 anna\nu2 anna\n")
    return folder, [("u1", "one", "anna", None), ("u2", "two", "anna", None)]


def make_kaldi_splits(folder):
    for split in ("train", "test"):
        write_tone(folder / split / f"{split}.wav")
        (folder / split / "wav.scp").write_text(f"{split} {split}.wav\n")
        (folder / split / "text").write_text(f"{split} stop\n")
    return folder, [("test", "stop", None, "test"), ("train", "stop", None, "train")]


def make_folder(folder):
    write_tone(folder / "train/anna/one.wav")
    (folder / "train/anna/one.txt").write_text("Go\nleft\n")
    return folder, [("train/anna/one", "go left", "anna", "train")]


def make_lhotse(folder):
    source, rows = make_nemo(folder)
    cuts = read_data(source)
    for cut in cuts:
        cut.recording.sources[0].source = "audio/a.wav"
    (folder / "moved").mkdir()
    (folder / "audio").rename(folder / "moved/audio")
    cuts.to_file(folder / "moved/cuts.jsonl.gz")
    return folder / "moved/cuts.jsonl.gz", rows


@pytest.mark.parametrize(
    "make",
    [make_nemo, make_librispeech, make_kaldi, make_kaldi_splits, make_folder, make_lhotse],
)
def test_formats(make, tmp_path):
    source, rows = make(tmp_path)
    cuts = read_data(source)
    assert summary(cuts) == rows
    for cut in cuts:
        samples = read_samples(cut)
        assert samples.dtype == np.float32
        assert len(samples) == round(cut.duration * 16_000)


def test_segments_read_their_part(tmp_path):
    samples = np.linspace(-0.5, 0.5, 16_000, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    fields = {"audio_filepath": "a.wav", "text": "yes", "offset": 0.25, "duration": 0.5}
    (cut,) = read_data(write_manifest(tmp_path, fields))
    np.testing.assert_array_equal(read_samples(cut), samples[4000:12_000])


def test_stereo_at_8_khz_is_mixed_and_resampled(tmp_path):
    write_tone(tmp_path / "a.wav", seconds=1.0, sample_rate=8_000, channels=2)
    fields = {"audio_filepath": "a.wav", "text": "yes"}
    samples = read_samples(next(iter(read_data(write_manifest(tmp_path, fields)))))
    times = np.arange(16_000) / 16_000
    expected = 0.5 * np.sin(2 * np.pi * 440 * times)
    assert samples.shape == (16_000,)
    np.testing.assert_allclose(samples[800:-800], expected[800:-800], atol=2e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"audio_filepath": "a.wav"}, "line 2: no text"),
        ({"audio_filepath": "a.wav", "text": " ,"}, "line 2: empty text"),
        ({"audio_filepath": "a.wav", "text": 3}, "line 2: no text"),
        ({"text": "yes"}, "line 2: no audio_filepath"),
        ({"audio_filepath": "b.wav", "text": "yes"}, "line 2: .*b.wav: no such file"),
        ({"audio_filepath": "zero.wav", "text": "yes"}, "line 2: .*zero.wav: the file is empty"),
        ({"audio_filepath": "cut.wav", "text": "yes"}, "line 2: .*truncated"),
        ({"audio_filepath": "text.wav", "text": "yes"}, "line 2: .*text.wav"),
        ({"audio_filepath": "a.wav", "text": "yes", "split": "tset"}, "line 2: unknown split"),
        ({"audio_filepath": "a.wav", "text": "yes", "duration": 9}, "line 2: .*ends at 0.50 s"),
        ({"audio_filepath": "a.wav", "text": "yes", "duration": "1"}, "line 2: duration"),
        ({"audio_filepath": "a.wav", "text": "yes", "offset": 0.5}, "line 2: no audio between"),
        ({"audio_filepath": "a.wav", "text": "yes", "id": "first"}, "2 utterances .* first"),
    ],
)
def test_bad_manifest_lines(fields, message, tmp_path):
    write_tone(tmp_path / "a.wav")
    write_tone(tmp_path / "cut.wav")
    whole = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "zero.wav").touch()
    (tmp_path / "text.wav").write_text("this is not a sound at all\n")
    good = {"audio_filepath": "a.wav", "text": "yes", "id": "first"}
    with pytest.raises(InputError, match=message) as caught:
        read_data(write_manifest(tmp_path, good, fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is empty"), ("yes\n", "line 1: not JSON"), ("[1]\n", "line 1: not a JSON object")],
)
def test_files_that_are_no_manifest(content, message, tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_data(path)


def test_foreign_and_damaged_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_data(tmp_path / "nowhere")
    (tmp_path / "data.csv").write_text("a,b\n")
    with pytest.raises(InputError, match=r"data.csv is not data"):
        read_data(tmp_path / "data.csv")
    with pytest.raises(InputError, match="holds no utterances"):
        read_data(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes('{"text": "é"}\n'.encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_data(tmp_path / "latin.jsonl")
    whole = gzip.compress(b'{"text": "yes"}\n' * 100)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        read_data(tmp_path / "cut.jsonl.gz")
    (tmp_path / "foreign.jsonl").write_text('{"type": "MonoCut", "id": "a"}\n')
    with pytest.raises(InputError, match="line 1: not a cut"):
        read_data(tmp_path / "foreign.jsonl")


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        ("wav.scp", "rec sox rec.wav -t wav - |\n", "commands are not run"),
        ("wav.scp", "rec rec.wav\nrec rec.wav\n", "line 2: rec is there twice"),
        ("segments", "u1 rec 0.5\n", "line 1: write `utterance recording start end`"),
        ("segments", "u1 rec 2 1\n", "line 1: the segment ends"),
        ("segments", "u1 other 0 1\n", "line 1: recording other is not in"),
        ("text", "u1 one\nu2 two\nu3 three\n", "line 3: u3 has no audio"),
        ("text", "u1 one\n", "no text"),
    ],
)
def test_bad_kaldi_tables(table, content, message, tmp_path):
    folder, _ = make_kaldi(tmp_path)
    (folder / table).write_text(content)
    with pytest.raises(InputError, match=message):
        read_data(folder)


def test_folder_without_transcript(tmp_path):
    write_tone(tmp_path / "a.wav")
    with pytest.raises(InputError, match=r"a.wav: no text"):
        read_data(tmp_path)
    (cut,) = read_data(tmp_path, labelled=False)
    assert cut.supervisions[0].text == ""


def test_choosing_a_split_names_those_present(tmp_path):
    for name in ("a", "b"):
        write_tone(tmp_path / f"{name}.wav")
    lines = [
        {"audio_filepath": f"{name}.wav", "text": "yes", "split": split}
        for name, split in (("a", "train"), ("b", "test"))
    ]
    path = write_manifest(tmp_path, *lines)
    assert [cut.id for cut in read_data(path, split="test")] == ["b"]
    with pytest.raises(InputError, match="no split 'dev': use one of test, train"):
        read_data(path, split="dev")


def test_assigned_splits_share_no_speaker(tmp_path):
    write_tone(tmp_path / "a.wav", seconds=0.05)
    path = write_manifest(
        tmp_path,
        *(
            {"audio_filepath": "a.wav", "text": "yes", "id": str(i), "speaker": f"s{i % 40}"}
            for i in range(120)
        ),
    )
    cuts = assign_splits(read_data(path))
    assert splits_in(cuts) == ["dev", "test", "train"]
    where = {}
    for cut in cuts:
        where.setdefault(cut.supervisions[0].speaker, set()).add(split_name(cut))
    assert all(len(splits) == 1 for splits in where.values())
    with pytest.raises(InputError, match="names no splits"):
        read_data(path, split="test")


@pytest.mark.parametrize("speaker", ["anna", None])
def test_assigned_splits_of_one_speaker_go_by_utterance(speaker, tmp_path):
    for number in range(5):
        write_tone(tmp_path / (speaker or ".") / f"{number}.wav", seconds=0.05)
        (tmp_path / (speaker or ".") / f"{number}.txt").write_text("yes\n")
    names = [split_name(cut) for cut in assign_splits(read_data(tmp_path))]
    assert sorted(names) == ["dev", "test", "train", "train", "train"]


def test_too_little_data_for_splits(tmp_path):
    write_tone(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text("yes\n")
    with pytest.raises(InputError, match="too few utterances"):
        assign_splits(read_data(tmp_path))


def test_audio_spoilt_after_import(tmp_path):
    path = tmp_path / "a.wav"
    fields = {"audio_filepath": "a.wav", "text": "yes"}
    write_tone(path, seconds=1.0)
    (cut,) = read_data(write_manifest(tmp_path, fields))
    write_tone(path, seconds=0.4)
    with pytest.raises(AudioError, match=r"0.60 s short"):
        read_samples(cut)
    soundfile.write(path, np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="not finite"):
        read_samples(cut)


def test_normalise_text():
    assert normalise_text("“Don’t  STOP” -- 'Now'!") == "don't stop now"
    assert normalise_text("twenty-one o'clock") == "twenty-one o'clock".replace("-", " ")
    assert normalise_text("?!") == ""


def test_data_name(tmp_path):
    assert data_name(tmp_path / "digits/manifest.jsonl") == "digits"
    assert data_name(tmp_path / "my_cuts.jsonl.gz") == "my_cuts"
    assert data_name(tmp_path / "folder") == "folder"


@pytest.mark.parametrize(
    ("pack", "num_test"),
    [("speech_commands", 1318), ("digits_fsdd", 500), ("librispeech_mini", 104)],
)
def test_real_packs(pack, num_test):
    if not (SHARED / pack).is_dir():
        pytest.skip(f"no ../shared/data/{pack} beside this checkout")
    cuts = read_data(SHARED / pack, split="test")
    assert len(cuts) == num_test
    cut = next(iter(cuts))
    assert abs(len(read_samples(cut)) / 16_000 - cut.duration) < 0.01
