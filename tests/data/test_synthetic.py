import json
from pathlib import Path

import numpy as np
import pytest

import compress.data.synthetic as synthetic
from compress.data.espeak import phone_inventory
from compress.data.synthetic import SyntheticSettings, make_synthetic, prepare_synthetic
from compress.data.voices import split_voices


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    return prepare_synthetic(folder, 30, "test", 5, 1, SyntheticSettings())


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_cuts_hold_what_was_said(made: Path) -> None:
    cuts = list(make_synthetic(made.parent, 30, "test", seed=5))
    speakers = {voice.speaker for voice in split_voices()["test"]}
    assert len(cuts) == 30
    assert len({cut.id for cut in cuts}) == 30
    for cut in cuts:
        (supervision,) = cut.supervisions
        samples = cut.load_audio()[0]
        assert cut.sampling_rate == 16_000
        assert len(samples) == cut.num_samples
        assert np.sqrt(np.mean(samples**2)) > 0.001 and np.abs(samples).max() < 1
        assert supervision.speaker in speakers
        words = supervision.alignment["word"]
        phones = supervision.alignment["phone"]
        assert [item.symbol for item in words] == supervision.text.split()
        assert {item.symbol for item in phones} <= set(phone_inventory())
        assert phones[0].start >= 0.1
        assert phones[-1].end <= cut.duration - 0.1


def test_silence_surrounds_the_speech(made: Path) -> None:
    for cut in make_synthetic(made.parent, 30, "test", seed=5):
        samples = cut.load_audio()[0]
        assert np.abs(samples[:1600]).max() < 0.01
        assert np.abs(samples[-1500:]).max() < 0.01


def test_found_in_the_cache_and_split_by_name(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_write_shards", None)
    again = prepare_synthetic(made.parent, 30, "test", 5, 1, SyntheticSettings())
    assert again == made and made.name.startswith("test-30-")
    with pytest.raises(ValueError, match="train, dev, test"):
        prepare_synthetic(made.parent, 30, "valid", 5, 1, SyntheticSettings())


def test_settings_and_seed_name_another_folder(made: Path, tmp_path: Path) -> None:
    names = {
        prepare_synthetic(tmp_path, 2, "test", seed, 1, settings).name
        for seed, settings in [
            (5, SyntheticSettings()),
            (6, SyntheticSettings()),
            (5, SyntheticSettings(rate=(100, 110))),
        ]
    }
    assert len(names) == 3


def test_same_bytes_for_any_number_of_workers(tmp_path: Path, monkeypatch) -> None:
    one = prepare_synthetic(tmp_path / "one", 260, "dev", 1, 1, SyntheticSettings())
    two = prepare_synthetic(tmp_path / "two", 260, "dev", 1, 2, SyntheticSettings())
    assert read_bytes(one) == read_bytes(two)


def test_killed_run_goes_on_with_finished_shards(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "SHARD_UTTERANCES", 10)
    spoken: list[str] = []
    speak = synthetic.synthesize

    def stop_at_the_fifteenth(text, voice):
        if len(spoken) == 15:
            raise KeyboardInterrupt
        spoken.append(text)
        return speak(text, voice)

    monkeypatch.setattr(synthetic, "synthesize", stop_at_the_fifteenth)
    with pytest.raises(KeyboardInterrupt):
        prepare_synthetic(tmp_path, 30, "test", 5, 1, SyntheticSettings())
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    spoken.clear()
    monkeypatch.setattr(synthetic, "synthesize", lambda t, v: spoken.append(t) or speak(t, v))
    folder = prepare_synthetic(tmp_path, 30, "test", 5, 1, SyntheticSettings())
    assert len(spoken) == 20
    texts = [json.loads(line)["text"] for line in _supervisions(folder)]
    assert texts == [json.loads(line)["text"] for line in _supervisions(made)]


def _supervisions(folder: Path) -> list[str]:
    import gzip

    lines = gzip.decompress((folder / "cuts.jsonl.gz").read_bytes()).decode().splitlines()
    return [json.dumps(json.loads(line)["supervisions"][0]) for line in lines]


def test_whole_folder_can_be_moved(made: Path, tmp_path: Path) -> None:
    import shutil

    moved = Path(shutil.copytree(made, tmp_path / "moved"))
    cut = next(iter(synthetic.load_synthetic(moved)))
    assert str(moved) in cut.recording.sources[0].source
    assert cut.load_audio().shape[1] == cut.num_samples
