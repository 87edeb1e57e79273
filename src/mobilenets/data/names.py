"""Names of files and classes: their order, how they are shown, and who goes into validation."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def natural_key(name: str) -> tuple:
    """A sort key under which "9" comes before "10" and case matters last."""
    parts = re.split(r"([0-9]+)", name.casefold())
    for index in range(1, len(parts), 2):
        digits = parts[index].lstrip("0")
        parts[index] = (len(digits), digits)  # as the number, however long it is
    return tuple(parts), name


def shown(name: str) -> str:
    """``name`` composed (NFC) and fit to print: control characters and what is no UTF-8 become U+FFFD.

    macOS hands out decomposed names and Linux composed ones; a folder copied from one to the other keeps its
    classes and its split.
    """
    # Half a pair stands for a byte in a file's name, and for nothing in JSON.
    printable = _HALVES.sub("\ufffd", name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    printable = "".join("\ufffd" if unicodedata.category(letter) == "Cc" else letter for letter in printable)
    return unicodedata.normalize("NFC", printable)


def counted(count: int, noun: str) -> str:
    """ "1 image", "2 images"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def some(items: Sequence[str], limit: int = 3) -> str:
    """The first few of ``items``: "a, b, c and 7 more"."""
    text = ", ".join(items[:limit])
    return f"{text} and {len(items) - limit} more" if len(items) > limit else text


def for_validation(names: Sequence[str], seed: int, fraction: float) -> set[int]:
    """Chooses which images of one class go into validation.

    Every name draws a fixed lot from (seed, name), and the lowest lots go. Nothing else enters, so another
    class may grow without moving an image here, and one more image in this class moves hardly any.

    Args:
        names: Relative names of the images of one class.
        seed: Another seed, another choice.
        fraction: Share of the class that goes into validation, in (0, 1).

    Returns:
        Indices into ``names``: none of a single image, otherwise at least one and never all.
    """
    if len(names) < 2:
        return set()
    count = min(len(names) - 1, max(1, round(len(names) * fraction)))
    lots = [hashlib.sha256(f"{seed}/{shown(name)}".encode()).digest() for name in names]
    return set(sorted(range(len(names)), key=lots.__getitem__)[:count])
