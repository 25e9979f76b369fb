"""Joined clips: one speaker, exact text and length, the same for any order of the clips."""

import json

import numpy as np
import pytest
import soundfile

from compress.data.cuts import read_data
from compress.data.join import fade, join_cuts, noise_floor, read_joined
from streaming.errors import InputError


@pytest.fixture
def clips(tmp_path):
    """Six digits each of anna (level 0.1) and bert (level 0.4), 0.2 s to 0.25 s."""
    rng = np.random.default_rng(0)
    lines = []
    for speaker, level in (("anna", 0.1), ("bert", 0.4)):
        for index, word in enumerate(("zero", "one", "two", "three", "four", "five")):
            name = f"{speaker}-{word}"
            samples = level * rng.uniform(-1, 1, 3200 + 160 * index).astype(np.float32)
            soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
            lines.append(
                {
                    "audio_filepath": f"{name}.wav",
                    "text": word,
                    "speaker": speaker,
                    "split": "train",
                }
            )
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return list(read_data(manifest))


def test_strings_of_one_speaker(clips):
    joined = join_cuts(clips, num=50, words_range=(2, 5), seed=3)
    assert {utterance.speaker for utterance in joined} == {"anna", "bert"}
    assert {len(utterance.pieces) for utterance in joined} == {2, 3, 4, 5}
    assert len({utterance.id for utterance in joined}) == 50
    for utterance in joined:
        assert {cut.supervisions[0].speaker for cut in utterance.pieces} == {utterance.speaker}
        assert utterance.text == " ".join(cut.supervisions[0].text for cut in utterance.pieces)
        assert len({cut.id for cut in utterance.pieces}) == len(utterance.pieces)
        assert all(0.05 <= gap <= 0.3 for gap in utterance.gaps_seconds[:-1])
        assert utterance.gaps_seconds[-1] == 0


def test_same_seed_same_strings_in_any_order(clips):
    first = join_cuts(clips, num=10, words_range=(1, 4), seed=7)
    again = join_cuts(reversed(clips), num=10, words_range=(1, 4), seed=7)
    assert first == again
    assert first != join_cuts(clips, num=10, words_range=(1, 4), seed=8)
    np.testing.assert_array_equal(read_joined(first[0]), read_joined(again[0]))


def test_samples_are_the_clips_with_quiet_gaps(clips):
    for utterance in join_cuts(clips, num=5, words_range=(3, 3), seed=0):
        samples = read_joined(utterance)
        assert samples.dtype == np.float32
        assert abs(len(samples) / 16_000 - utterance.duration) < 1e-3
        end = round(utterance.pieces[0].duration * 16_000)
        gap = samples[end : end + round(utterance.gaps_seconds[0] * 16_000)]
        clip = samples[80 : end - 80]
        assert 0 < gap.std() < 1.1 * clip.std()


def test_more_words_than_clips(clips):
    (utterance,) = join_cuts(clips[:1], num=1, words_range=(4, 4), seed=0)
    assert utterance.text == "zero zero zero zero"


@pytest.mark.parametrize("words_range", [(0, 3), (3, 2)])
def test_bad_range(clips, words_range):
    with pytest.raises(InputError, match="words_range"):
        join_cuts(clips, num=1, words_range=words_range, seed=0)


def test_speakers_are_needed_and_stay_in_one_split(clips):
    clips[0].custom["split"] = "test"
    with pytest.raises(InputError, match="anna is in two splits"):
        join_cuts(clips, num=1, words_range=(1, 2), seed=0)
    clips[0].supervisions[0].speaker = None
    with pytest.raises(InputError, match="names no speaker"):
        join_cuts(clips, num=1, words_range=(1, 2), seed=0)
    with pytest.raises(InputError, match="no clips"):
        join_cuts([], num=1, words_range=(1, 2), seed=0)


def test_fade_written_out():
    faded = fade(np.ones(8, np.float32))
    np.testing.assert_array_equal(faded, [0, 0.25, 0.5, 0.75, 0.75, 0.5, 0.25, 0])


def test_noise_floor_is_the_quietest_block():
    loud, quiet = np.full(400, 0.5, np.float32), np.full(640, 0.01, np.float32)
    assert noise_floor(np.concatenate([loud, quiet, loud])) == pytest.approx(0.01)
    assert noise_floor(np.ones(10, np.float32)) == 0.0
