"""Numbers and names as people read them. Every function answers "–" to what is missing or not a number."""

import math
import unicodedata
from typing import Any

MISSING = "–"
SPACE = "\N{NARROW NO-BREAK SPACE}"  # between a number and its unit, and between thousands
MINUS = "\N{MINUS SIGN}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def is_number(value: Any) -> bool:
    """Tells whether ``value`` is a finite number that a float can hold (bool is not)."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def percent(value: Any, images: Any = None) -> str:
    """0.9833 -> "98.3 %"; two decimals when ``images`` are many enough (5000) to carry them.

    Only a rate of exactly 1 is "100 %": 0.9996 is "99.96 %".
    """
    if not is_number(value):
        return MISSING
    digits = 2 if is_number(images) and images >= 5000 else 1
    while digits < 4 and value < 0.9999995 and round(value * 100, digits) == 100:
        digits += 1
    return f"{value * 100:.{digits}f}".replace("-", MINUS) + f"{SPACE}%"


def rate(value: Any) -> str:
    """0.9833 -> "98.3", for a column whose head says percent."""
    return percent(value).removesuffix("%").rstrip()


def points(difference: Any, images: Any = None) -> str:
    """-0.0028 -> "−0.3" (percentage points, signed); decimals as ``percent``."""
    if not is_number(difference):
        return MISSING
    digits = 2 if is_number(images) and images >= 5000 else 1
    text = f"{difference * 100:+.{digits}f}".replace("-", MINUS)
    return f"{0:.{digits}f}" if float(text.replace(MINUS, "-")) == 0 else text


def count(value: Any) -> str:
    """4231976 -> "4 231 976"."""
    if not is_number(value):
        return MISSING
    return f"{round(value):,}".replace(",", SPACE).replace("-", MINUS)


def short_count(value: Any) -> str:
    """4231976 -> "4.23 M": three digits and k, M or G."""
    return _scaled(value, ("", "k", "M", "G", "T"))


def size(value: Any) -> str:
    """Bytes in decimal units: 16928000 -> "16.9 MB"."""
    return _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def milliseconds(value: Any) -> str:
    """2.0512 -> "2.05 ms", 0.0123 -> "0.012 ms"; three digits."""
    if not is_number(value):
        return MISSING
    return f"{_three_digits(value)}{SPACE}ms"


def duration(seconds: Any) -> str:
    """75 -> "1 min 15 s", 8000 -> "2 h 13 min"."""
    if not is_number(seconds):
        return MISSING
    if seconds < 60:
        return f"{_three_digits(seconds)}{SPACE}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{SPACE}min {whole % 60}{SPACE}s"
    return f"{whole // 3600}{SPACE}h {whole % 3600 // 60}{SPACE}min"


def number(value: Any) -> str:
    """Any number with three significant digits: 0.0512, 12.3, 4 231, 1.2·10⁻⁶."""
    if not is_number(value):
        return MISSING
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        whole = isinstance(value, int) or abs(value) >= 100
        return count(value) if whole else f"{value:.3g}".replace("-", MINUS)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.replace('-', MINUS)}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def plain(text: Any) -> str:
    """Makes a name safe to draw and to encode: control characters, lone surrogates become visible marks."""

    def shown(char: str) -> str:
        if char.isspace():
            return " "
        return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in ("Cc", "Cs") else char

    return "".join(map(shown, str(text)))


def width(text: str) -> int:
    """How many columns a text takes: Chinese, Japanese, Korean characters take two, combining marks none."""

    def columns(char: str) -> int:
        return 0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")

    return sum(map(columns, text))


def shorten(text: Any, columns: int) -> str:
    """Cuts the middle out of a long name: "red_squirrel_in_winter" -> "red_squ…winter"."""
    text = plain(text)
    if width(text) <= columns:
        return text
    kept = list(text)
    while kept and width("".join(kept)) > columns - 1:
        del kept[len(kept) // 2]
    half = (len(kept) + 1) // 2
    return "".join(kept[:half]) + "…" + "".join(kept[half:])


def _scaled(value: Any, units: tuple[str, ...]) -> str:
    if not is_number(value):
        return MISSING
    power = 0
    while abs(value) >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    text = str(round(value)) if power == 0 else _three_digits(value)
    return f"{text}{SPACE}{units[power]}" if units[power] else text


def _three_digits(value: float) -> str:
    """2.0512 -> "2.05", 16.93 -> "16.9", 569.2 -> "569", 0.0123 -> "0.012"."""
    digits = 3 if abs(value) < 0.9995 else 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}".replace("-", MINUS)
