import random

import numpy as np
import pytest

from compress.data.espeak import (
    SAMPLE_RATE,
    SILENCE_PHONE,
    _resample,
    normalise_phone,
    phone_inventory,
    synthesize,
)
from compress.data.grammar import sentences
from compress.data.voices import ACCENTS, VARIANTS, Voice, split_voices, voices


def test_at_least_sixty_variants_by_five_accents() -> None:
    assert len(set(VARIANTS)) >= 60
    assert len(ACCENTS) >= 5
    assert len(voices()) == len(VARIANTS) * len(ACCENTS)


def test_no_speaker_is_in_two_splits() -> None:
    split = split_voices()
    speakers = {name: {voice.speaker for voice in members} for name, members in split.items()}
    assert set(speakers) == {"train", "dev", "test"}
    assert not speakers["train"] & speakers["test"]
    assert not speakers["train"] & speakers["dev"]
    assert not speakers["dev"] & speakers["test"]
    assert sum(map(len, speakers.values())) == len(VARIANTS)
    assert min(map(len, speakers.values())) >= 8
    assert split_voices(0) == split and split_voices(1) != split


def test_siblings_stay_together() -> None:
    train = {voice.variant for voice in split_voices(7)["train"]}
    assert {"iven2", "iven3", "iven4", "klatt", "klatt6", "steph", "steph3"} <= train


@pytest.mark.parametrize("accent", ACCENTS)
def test_phones_and_words_cover_the_speech_in_order(accent: str) -> None:
    for text in sentences(12, seed=1):
        speech = synthesize(text, Voice(accent, "f2"))
        seconds = len(speech.samples) / SAMPLE_RATE
        assert speech.samples.dtype == np.float32
        assert [word for *_, word in speech.words] == text.split()
        assert {phone for *_, phone in speech.phones} <= set(phone_inventory())
        for items in (speech.phones, speech.words):
            times = [time for start, end, _ in items for time in (start, end)]
            assert times == sorted(times)
            assert times[0] >= 0 and times[-1] <= seconds + 1e-6
        assert speech.phones[-1][2] != SILENCE_PHONE
        assert seconds - speech.phones[-1][1] <= 0.05 + 1e-3


def test_words_that_espeak_joins_are_divided() -> None:
    words = synthesize("the lamp in the hall", Voice("en-us", "m3")).words
    joined, article = words[2], words[3]
    assert (joined[2], article[2]) == ("in", "the")
    assert joined[1] == pytest.approx(article[0])
    assert all(end > start for start, end, _ in words)


@pytest.mark.parametrize("variant", ["m3", "f2", "Reed"])
def test_phones_are_where_they_say(variant: str) -> None:
    """An s crosses zero more often than a vowel: its times fit best where they are, unshifted."""
    voice = Voice("en-us", variant, rate=130)
    speech = synthesize("say six seven set the house lights sister music seconds", voice)
    num_frames = len(speech.samples) // 160
    signs = np.signbit(speech.samples[: num_frames * 160]).reshape(-1, 160)
    hissing = np.mean(signs[:, 1:] != signs[:, :-1], axis=1) > 0.3
    fricatives = [(start, end) for start, end, phone in speech.phones if phone in ("s", "S")]
    agreement = {}
    for shift_frames in range(-4, 5):
        centres = (np.arange(num_frames) + 0.5 - shift_frames) / 100
        said = np.any([(centres > start) & (centres < end) for start, end in fricatives], axis=0)
        agreement[shift_frames] = np.mean(said == hissing)
    assert max(agreement, key=agreement.__getitem__) == 0
    assert agreement[0] > 0.8


@pytest.mark.parametrize("variant", ["m3", "Reed", "klatt2", "grandpa"])
def test_same_call_same_samples_whatever_came_before(variant: str) -> None:
    voice = Voice("en-gb", variant, rate=170)
    first = synthesize("stop the music", voice).samples
    synthesize("something else entirely", Voice("en-us", random.choice(VARIANTS)))
    np.testing.assert_array_equal(synthesize("stop the music", voice).samples, first)


def test_rate_and_pitch_are_heard() -> None:
    text = "turn on the lights in the kitchen"
    slow = synthesize(text, Voice("en-us", "m3", rate=120))
    fast = synthesize(text, Voice("en-us", "m3", rate=230))
    assert len(slow.samples) > 1.4 * len(fast.samples)
    high = synthesize(text, Voice("en-us", "m3", rate=120, pitch=80))
    assert not np.array_equal(high.samples[: len(slow.samples)], slow.samples)


def test_unknown_voice_is_named() -> None:
    with pytest.raises(RuntimeError, match="en-xx"):
        synthesize("hello", Voice("en-xx", "m3"))


@pytest.mark.parametrize(
    ("name", "phone"),
    [("'aI2", "aI"), ("i:", "i"), (",3:", "3"), ("_:", "sil"), ("_", "sil"), ("i@3", "i@")],
)
def test_normalise_phone(name: str, phone: str) -> None:
    assert normalise_phone(name) == phone


def test_inventory_is_sorted_and_small() -> None:
    inventory = phone_inventory()
    assert inventory == sorted(set(inventory))
    assert 40 <= len(inventory) <= 62


def test_resample_keeps_a_tone() -> None:
    seconds = np.arange(22_050) / 22_050
    resampled = _resample(np.sin(2 * np.pi * 1000 * seconds).astype(np.float32), 22_050)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    assert len(resampled) == 16_000
    np.testing.assert_allclose(resampled[400:-400], expected[400:-400], atol=2e-3)
