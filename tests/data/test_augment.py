import numpy as np
import pytest

from compress.data.augment import (
    SAMPLE_RATE,
    AugmentSettings,
    add_noise,
    add_room,
    augment,
    change_speed,
    draw_noise,
    draw_room,
    draw_speed,
    fast_length,
    limit_band,
    speech_level,
)


def make_tone(hertz: float, num_samples: int = SAMPLE_RATE) -> np.ndarray:
    return np.sin(2 * np.pi * hertz / SAMPLE_RATE * np.arange(num_samples)).astype(np.float32)


def find_pitch(samples: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(power.argmax()) * SAMPLE_RATE / len(samples)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("num_samples", [1, 37, 4001, 30_000])
def test_same_generator_same_samples(seed: int, num_samples: int) -> None:
    samples = np.random.default_rng(9).standard_normal(num_samples).astype(np.float32) * 0.1
    kept = samples.copy()
    noises = [np.random.default_rng(8).standard_normal(5000).astype(np.float32)] if seed % 2 else []
    first = augment(samples, np.random.default_rng(seed), noises)
    second = augment(samples, np.random.default_rng(seed), noises)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(samples, kept)
    assert first.dtype == np.float32
    assert np.isfinite(first).all() and np.abs(first).max() <= 1.0 + 1e-6


def test_nothing_in_nothing_out() -> None:
    assert len(augment(np.zeros(0, np.float32), np.random.default_rng(0))) == 0


def test_digital_silence_stays_finite() -> None:
    for seed in range(20):
        assert np.isfinite(augment(np.zeros(8000, np.float32), np.random.default_rng(seed))).all()


@pytest.mark.parametrize("factor", [0.9, 0.95, 1.05, 1.1])
def test_speed_moves_length_and_pitch(factor: float) -> None:
    changed = change_speed(make_tone(1000), factor)
    assert len(changed) == pytest.approx(SAMPLE_RATE / factor, abs=1)
    assert find_pitch(changed) == pytest.approx(1000 * factor, abs=2)


def test_speed_of_one_is_untouched_and_draws_are_on_the_grid() -> None:
    samples = make_tone(440)
    assert change_speed(samples, 1.0) is samples
    rng = np.random.default_rng(0)
    drawn = {draw_speed(rng, AugmentSettings(speed_probability=1.0)) for _ in range(300)}
    assert drawn == {step / 40 for step in range(36, 45)}
    assert draw_speed(rng, AugmentSettings(speed_probability=0.0)) == 1.0


def test_speed_given_is_the_speed_used() -> None:
    changed = augment(make_tone(500), np.random.default_rng(0), speed=1.1)
    assert len(changed) == pytest.approx(SAMPLE_RATE / 1.1, abs=1)


def test_noise_is_at_the_asked_ratio() -> None:
    speech = make_tone(700)
    noise = draw_noise(np.random.default_rng(0), (), len(speech))
    added = add_noise(speech, noise, 10.0) - speech
    ratio = 20 * np.log10(speech_level(speech) / np.sqrt(np.mean(added**2)))
    assert ratio == pytest.approx(10.0, abs=0.01)
    np.testing.assert_array_equal(add_noise(speech, np.zeros_like(speech), 10.0), speech)


def test_short_noise_is_repeated() -> None:
    noise = draw_noise(np.random.default_rng(1), [np.arange(7, dtype=np.float32)], 30)
    assert len(noise) == 30
    np.testing.assert_array_equal(np.diff(noise) % 7, 1)


def test_speech_level_ignores_pauses() -> None:
    tone = make_tone(700)
    padded = np.concatenate([np.zeros(8000, np.float32), tone])
    assert speech_level(padded) == pytest.approx(speech_level(tone), rel=0.01)


def test_made_room_starts_with_the_direct_sound_and_decays() -> None:
    room = draw_room(np.random.default_rng(2), (), AugmentSettings())
    assert room[0] == 1.0 and np.abs(room).argmax() == 0
    tenth = len(room) // 10
    assert np.sum(room[-tenth:] ** 2) < 1e-3 * np.sum(room[1:tenth] ** 2)


def test_given_room_is_cut_to_its_direct_sound() -> None:
    rir = np.array([0.0, 0.1, 1.0, 0.5], dtype=np.float32)
    room = draw_room(np.random.default_rng(0), [rir], AugmentSettings())
    np.testing.assert_array_equal(room, rir[2:])
    heard = add_room(np.array([1, 0, 0, -2], np.float32), room)
    np.testing.assert_allclose(heard, [1, 0.5, 0, -2], atol=1e-6)


def test_telephone_band() -> None:
    inside, outside = make_tone(1000), make_tone(6000)
    assert speech_level(limit_band(inside, 3500)) == pytest.approx(speech_level(inside), rel=0.02)
    assert speech_level(limit_band(outside, 3500)) < 0.02


def test_level_is_drawn() -> None:
    quiet = AugmentSettings(0, room_probability=0, noise_probability=0, band_probability=0)
    levels = [
        20
        * np.log10(speech_level(augment(make_tone(300), np.random.default_rng(i), (), (), quiet)))
        for i in range(40)
    ]
    assert min(levels) < -35 and max(levels) > -18
    assert all(-40.1 <= level <= -13.9 for level in levels)


def test_fast_length() -> None:
    assert [fast_length(n) for n in (1, 7, 11, 16_001)] == [1, 8, 12, 16_200]
    with pytest.raises(ValueError, match="cut the recording"):
        fast_length(2**24 + 1)
