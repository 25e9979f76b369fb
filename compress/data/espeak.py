"""Speech from espeak-ng through the espeakng-loader wheel, with the time of every phone and word.

espeak-ng keeps oscillator and noise state between utterances, so the same call gives other samples
the second time. The library is therefore loaded afresh for each utterance (4 ms): `synthesize` is a
function of its arguments alone, in any process and order.
"""

from __future__ import annotations

import _ctypes
import ctypes
import functools
import re
import sys
from typing import NamedTuple

import numpy as np

from compress.data.voices import ACCENTS, Voice

SAMPLE_RATE = 16_000
SILENCE_PHONE = "sil"
_ESPEAK_NAMES = {"en-gb": "en"}
_RETRIEVAL, _PHONEME_EVENTS, _UTF8 = 2, 1, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_END, _WORD, _PHONE = 0, 1, 7


class _Id(ctypes.Union):
    _fields_ = [
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Speech(NamedTuple):
    """What `synthesize` gives: float32 samples at 16 kHz and (start, end, symbol) in seconds."""

    samples: np.ndarray
    phones: list[tuple[float, float, str]]
    words: list[tuple[float, float, str]]


def phone_inventory() -> list[str]:
    """The phones of all accents without stress and length marks, "sil" too, sorted: classes."""
    return list(_INVENTORY)


# ruff: noqa: SIM905  (name lists read as text)
_INVENTORY = tuple(
    sorted(
        "sil n t s @ d f r m E I l aI k z D v w p 0 eI i 3 b T u a g oU h V o@ O@ aU j i@ A@ tS "
        "aa N O dZ S U e@ Z IR VR OI aI@ A @L ?".split()
    )
)


@functools.cache
def normalise_phone(name: str) -> str:
    """Map an espeak phone name to the inventory: "'aI2" -> "aI", "i:" -> "i", "_:" -> "sil"."""
    bare = re.sub(r"[',%=:#\-\[|]", "", name)
    bare = bare[:1] + re.sub(r"[0-9]", "", bare[1:])
    bare = {"": SILENCE_PHONE, "_": SILENCE_PHONE, ";": "j", "__": SILENCE_PHONE}.get(bare, bare)
    while bare and bare not in _INVENTORY:
        bare = bare[:-1]
    return bare or SILENCE_PHONE


def synthesize(text: str, voice: Voice) -> Speech:
    """Say `text` (words of letters and apostrophes) at espeak's own level.

    The samples end at most 50 ms after the last phone.

    Raises RuntimeError when espeak-ng does not know the voice.
    """
    pcm, rate, events = _speak(text, voice)
    end = len(pcm) / rate
    phones = _read_phones(events, rate, end)
    while phones and phones[-1][2] == SILENCE_PHONE:
        end = phones.pop()[0]
    samples = _resample(pcm[: round((end + 0.05) * rate)], rate)
    return Speech(samples, phones, _read_words(events, text, rate, phones))


def _speak(text: str, voice: Voice) -> tuple[np.ndarray, int, list[tuple[int, int, int, str]]]:
    """PCM in [-1, 1], its sample rate, and events (type, text position from 0, sample, phone)."""
    import espeakng_loader

    blocks: list[bytes] = []
    events: list[tuple[int, int, int, str]] = []

    def receive(wav, num_samples, event) -> int:
        if wav and num_samples:
            blocks.append(ctypes.string_at(wav, 2 * num_samples))
        index = 0
        while event[index].type != _END:
            e = event[index]
            phone = e.id.string.decode("utf-8", "replace") if e.type == _PHONE else ""
            events.append((e.type, e.text_position - 1, e.sample, phone))
            index += 1
        return 0

    callback = _Callback(receive)
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        data_path = espeakng_loader.get_data_path().encode()
        rate = library.espeak_Initialize(_RETRIEVAL, 0, data_path, _PHONEME_EVENTS)
        if rate <= 0:
            raise RuntimeError(f"espeak-ng did not start with its data in {data_path.decode()}")
        library.espeak_SetSynthCallback(callback)
        _seed_noise(library)
        _choose_voice(library, voice)
        raw = text.encode()
        library.espeak_Synth(raw, ctypes.c_size_t(len(raw) + 1), 0, 1, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        library.espeak_Terminate()
    finally:
        _unload(library)
    pcm = np.frombuffer(b"".join(blocks), dtype=np.int16).astype(np.float32) / 32768
    return pcm, rate, events


def _choose_voice(library: ctypes.CDLL, voice: Voice) -> None:
    name = f"{_ESPEAK_NAMES.get(voice.accent, voice.accent)}+{voice.variant}"
    if library.espeak_SetVoiceByName(name.encode()) != 0:
        raise RuntimeError(f"espeak-ng has no voice {name!r}; accents are {', '.join(ACCENTS)}")
    settings = [(_RATE, voice.rate), (_VOLUME, 60), (_PITCH, voice.pitch), (_RANGE, voice.range)]
    for parameter, value in settings:
        library.espeak_SetParameter(parameter, value, 0)


def _seed_noise(library: ctypes.CDLL) -> None:
    """Aspiration draws from the C library's rand(), the Klatt voices from espeak's own."""
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None).srand(1)


def _unload(library: ctypes.CDLL) -> None:
    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)


def _read_phones(
    events: list[tuple[int, int, int, str]], rate: int, end: float
) -> list[tuple[float, float, str]]:
    """Intervals of phones; neighbouring silences merge, before the first phone is silence."""
    starts = [
        (sample / rate, normalise_phone(p)) for kind, _, sample, p in events if kind == _PHONE
    ]
    starts.insert(0, (0.0, SILENCE_PHONE))
    ends = [start for start, _ in starts[1:]] + [end]
    phones: list[tuple[float, float, str]] = []
    for (start, phone), stop in zip(starts, ends, strict=True):
        if phone == SILENCE_PHONE and phones and phones[-1][2] == SILENCE_PHONE:
            phones[-1] = (phones[-1][0], stop, phone)
        elif stop > start:
            phones.append((start, stop, phone))
    return phones


def _read_words(
    events: list[tuple[int, int, int, str]],
    text: str,
    rate: int,
    phones: list[tuple[float, float, str]],
) -> list[tuple[float, float, str]]:
    """Intervals of words. espeak says "in the" as one: such a run is divided by its letters."""
    started = {position: sample / rate for kind, position, sample, _ in events if kind == _WORD}
    groups: list[tuple[float, list[str]]] = []
    for match in re.finditer(r"\S+", text):
        if match.start() in started or not groups:
            groups.append((started.get(match.start(), 0.0), []))
        groups[-1][1].append(match[0])
    words: list[tuple[float, float, str]] = []
    last = phones[-1][1] if phones else 0.0
    for (start, members), stop in zip(groups, [g[0] for g in groups[1:]] + [last], strict=True):
        letters = np.cumsum([0] + [len(word) for word in members]) / sum(map(len, members))
        times = start + (_speech_end(phones, start, stop) - start) * letters
        words += [
            (float(a), float(b), w) for a, b, w in zip(times, times[1:], members, strict=False)
        ]
    return words


def _speech_end(phones: list[tuple[float, float, str]], start: float, stop: float) -> float:
    """Where the last sounding phone in [start, stop] ends: a pause is no part of a word."""
    sounding = [min(b, stop) for a, b, p in phones if p != SILENCE_PHONE and start <= a < stop]
    return max(sounding, default=stop)


def _resample(pcm: np.ndarray, rate: int) -> np.ndarray:
    """22,050 Hz -> 16 kHz by cutting the spectrum, its last 500 Hz sloped against ringing."""
    if rate == SAMPLE_RATE or len(pcm) == 0:
        return pcm
    block = np.gcd(rate, SAMPLE_RATE)
    up, down = SAMPLE_RATE // block, rate // block
    num_blocks = -(-len(pcm) // down) + 1
    num_blocks = next(n for n in range(num_blocks, 2 * num_blocks + 2) if _is_smooth(n))
    spectrum = np.fft.rfft(pcm, num_blocks * down)
    num_bins = num_blocks * up // 2 + 1
    hertz = np.arange(num_bins) * (SAMPLE_RATE / (num_blocks * up))
    slope = 0.5 + 0.5 * np.cos(np.pi * np.clip((hertz - 7500) / 500, 0, 1))
    samples = np.fft.irfft(spectrum[:num_bins] * slope, num_blocks * up) * (up / down)
    return samples[: round(len(pcm) * up / down)].astype(np.float32)


def _is_smooth(number: int) -> bool:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1
