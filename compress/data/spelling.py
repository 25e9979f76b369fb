"""Numbers, clock times and durations as the words people say."""

from __future__ import annotations

import random
from collections.abc import Callable

# ruff: noqa: SIM905  (word lists read as text)
DIGITS = "zero one two three four five six seven eight nine".split()
TEENS = ("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen").split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
).split()


def spell_number(number: int) -> str:
    """Spell 0 <= number < 10,000 the American way: 1305 -> "one thousand three hundred five"."""
    if number < 10:
        return DIGITS[number]
    if number < 20:
        return TEENS[number - 10]
    if number < 100:
        tens, rest = divmod(number, 10)
        return TENS[tens - 2] + (f" {DIGITS[rest]}" if rest else "")
    unit, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    head, rest = divmod(number, unit)
    return f"{spell_number(head)} {name}" + (f" {spell_number(rest)}" if rest else "")


def spell_ordinal(number: int) -> str:
    """Spell a day of the month, 1 <= number <= 31: 21 -> "twenty first"."""
    if number < 20:
        return ORDINALS[number - 1]
    tens, rest = divmod(number, 10)
    if rest == 0:
        return {2: "twentieth", 3: "thirtieth"}[tens]
    return f"{TENS[tens - 2]} {ORDINALS[rest - 1]}"


def _clock(rng: random.Random) -> str:
    hour = spell_number(rng.randint(1, 12))
    minute = rng.choice(
        ["", "", "fifteen", "thirty", "forty five", spell_number(rng.randint(10, 59))]
    )
    style = rng.random()
    if style < 0.15:
        return f"half past {hour}"
    if style < 0.3:
        return f"quarter {rng.choice(['to', 'past'])} {hour}"
    if style < 0.4:
        return f"{hour} o'clock"
    return f"{hour} {minute}".strip()


def _duration(rng: random.Random) -> str:
    if rng.random() < 0.15:
        return rng.choice(["one second", "one minute", "one hour", "half an hour"])
    top, unit = rng.choice([(60, "seconds"), (60, "minutes"), (60, "minutes"), (24, "hours")])
    return f"{spell_number(rng.randint(2, top))} {unit}"


def _large(rng: random.Random) -> str:
    return spell_number(rng.choice([rng.randint(100, 999), rng.randint(1000, 9999)]))


def _year(rng: random.Random) -> str:
    century = rng.choice(["nineteen", "twenty"])
    return f"{century} {spell_number(rng.randint(10, 99))}"


NUMBERS: dict[str, Callable[[random.Random], str]] = {
    "digit": lambda rng: rng.choice(DIGITS),
    "small": lambda rng: spell_number(rng.randint(2, 20)),
    "percent": lambda rng: spell_number(rng.randint(1, 20) * 5),
    "degrees": lambda rng: spell_number(rng.randint(10, 35)),
    "number": lambda rng: spell_number(rng.randint(0, 99)),
    "large": _large,
    "ordinal": lambda rng: spell_ordinal(rng.randint(1, 31)),
    "year": _year,
    "clock": _clock,
    "duration": _duration,
}
