"""Numbers as a reader wants them: three digits and a unit. An unknown one is an en dash."""

from __future__ import annotations

import math

UNKNOWN = "–"


def format_count(count: float | None) -> str:
    """5470000 gives "5.47 M"."""
    return _scaled(count, ["", " k", " M", " G"])


def format_bytes(size: float | None) -> str:
    """10940000 gives "10.9 MB": 1 MB is 1e6 bytes."""
    return _scaled(size, [" B", " kB", " MB", " GB"])


def format_ms(time: float | None) -> str:
    return UNKNOWN if time is None else f"{_three_digits(time)} ms"


def format_share(share: float | None) -> str:
    """0.0312 gives "3.12 %"."""
    return UNKNOWN if share is None else f"{100 * share:.2f} %"


def format_error(error: float | None) -> str:
    """2.1e-6 gives "2.1e-06"."""
    return UNKNOWN if error is None else f"{error:.2g}"


def format_duration(seconds: float) -> str:
    """3.27 gives "3.3 s", 192 "3 min 12 s", 7500 "2 h 05 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_times(ratio: float) -> str:
    """10.04 gives "10 ×"."""
    return f"{_three_digits(ratio)} ×"


def _scaled(number: float | None, units: list[str]) -> str:
    if number is None:
        return UNKNOWN
    power = 0
    while abs(number) >= 999.5 and power < len(units) - 1:
        number /= 1000
        power += 1
    return _three_digits(number) + units[power]


def _three_digits(number: float) -> str:
    """Three significant digits without an exponent: 5.47, 12.3, 812, 4020; 10.0 is 10."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(number))))
    text = f"{number:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
