"""Which value or colour of a folder's masks is which class."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mobilenets.data.mask_classes import (
    VOC_BORDER,
    VOC_CLASSES,
    Listed,
    background_first,
    numbered,
    quoted,
    voc_colour,
    written,
)
from mobilenets.data.mask_file import GREY, HALF_TRANSPARENT, Looked
from mobilenets.data.masks import IGNORE
from mobilenets.data.names import counted, shown, some
from mobilenets.errors import UserError

# Black and white with soft edges has many values in between, each of few pixels.
_SOFT_VALUES = 10
_SOFT_SHARE = 0.2  # of the white pixels, at most


@dataclass(frozen=True)
class Meaning:
    """What the masks of a folder say.

    Attributes:
        classes: The names.
        class_of: From what was found in a file to the class of each of its values, ``IGNORE`` for those that are to
            be ignored; values that are unknown are missing.
        by_colour: Whether colours decide, also those of a palette.
    """

    classes: tuple[str, ...]
    class_of: Callable[[Looked], dict[int, int]]
    by_colour: bool


def meaning(looked: Mapping[Path, Looked], listed: Listed | None, voc: bool, source: str, notes: list[str]) -> Meaning:
    """Finds out which value is which class.

    Args:
        looked: What was found in each mask.
        listed: The folder's list of classes.
        voc: Whether the folder is laid out as Pascal VOC is.
        source: The folder as the user typed it.
        notes: Told where something had to be concluded.

    Raises:
        UserError: the colours are unknown ones, or every pixel has the same value.
    """
    found = looked.values()
    if listed is not None and listed.colours:
        return _by_table(found, listed, notes)
    names = listed.names if listed else None
    if names and len(names) == 1:
        names = ("background", *names)
    if any(one.coloured and any(colour % GREY for colour in one.colours.values()) for one in found):
        return _by_colour(found, names, voc, source, notes)
    return _by_index(found, names, voc, source, notes)


def _by_table(found: list[Looked], listed: Listed, notes: list[str]) -> Meaning:
    """By the colours of the list, or, where they do not occur, by its order."""
    names, colours = background_first(listed)
    classes = {colour: index for index, colour in enumerate(colours)}
    classes |= dict.fromkeys(listed.ignored, IGNORE)
    if VOC_BORDER not in classes:
        classes[VOC_BORDER] = IGNORE
    by_colour = Meaning(names, lambda one: _known(one.colours, classes), True)
    by_index = Meaning(listed.names, lambda one: _indices(one, len(listed.names)), False)
    if _unknown_pixels(found, by_index) < _unknown_pixels(found, by_colour):
        notes.append(f"masks hold the places of the classes in {listed.file}, not their colours, and are read so")
        return by_index
    return by_colour


def _by_colour(found: list[Looked], names: tuple[str, ...] | None, voc: bool, source: str, notes: list[str]) -> Meaning:
    """By VOC's colours, or by black and one other."""
    pixels: Counter[int] = Counter()
    for one in found:
        for value, count in one.values.items():
            pixels[one.colours[value]] += count
    del pixels[HALF_TRANSPARENT]
    used = sorted(pixels)
    if len(used) == 2 and used[0] == 0 and not voc and (names is None or len(names) == 2):
        notes.append(f"black is background, {written(used[1], True)} the object")
        return Meaning(names or numbered(2), lambda one: _known(one.colours, {0: 0, used[1]: 1}), True)
    count = len(names) if names else len(VOC_CLASSES)
    classes = {voc_colour(index): index for index in range(count)} | {VOC_BORDER: IGNORE}
    strange = [colour for colour, _ in pixels.most_common() if colour not in classes]
    # Of what is not black, since objects may be small.
    if sum(pixels[colour] for colour in strange) > (sum(pixels.values()) - pixels[0]) / 20:
        example = some([written(colour, True).removeprefix("colour ") for colour in strange])
        raise UserError(
            f"{source}: masks in colours that stand for no known class ({example}); "
            "write classes.txt with a line 'name:red,green,blue' for each class"
        )
    if names is None:
        highest = max(index for colour, index in classes.items() if index != IGNORE and (colour in pixels or not index))
        names = VOC_CLASSES if voc else numbered(highest + 1)
        told = "VOC's 20 classes" if voc else "numbered classes"
        notes.append(f"no list of classes: colours are VOC's, read as {told}; give the names in classes.txt")
    return Meaning(names, lambda one: _known(one.colours, classes), True)


def _by_index(found: list[Looked], names: tuple[str, ...] | None, voc: bool, source: str, notes: list[str]) -> Meaning:
    """By the values themselves."""
    pixels: Counter[int] = Counter()
    for one in found:
        pixels.update(_plain(one))
    bits = any(one.bits == 1 for one in found)
    if len(pixels) < 2:
        only = next(iter(pixels), 0)
        if not names and not (bits and only):
            raise UserError(f"{source}: every pixel of every mask has the value {only}; there is nothing to learn")
    high = {value for value in pixels if value not in (0, IGNORE)}
    soft = len(high) >= _SOFT_VALUES and sum(pixels[value] for value in high) < _SOFT_SHARE * pixels[IGNORE]
    white = IGNORE in pixels and 0 in pixels and (not high or soft)
    if white and (names is None or len(names) == 2):
        return Meaning(names or numbered(2), lambda one: _known(_plain_values(one), {0: 0, IGNORE: 1}), False)
    count = len(names) if names else max((value for value in pixels if value < IGNORE), default=0) + 1
    count = max(count, 2) if names is None else count
    if names is None:
        painted = voc and all(_painted(one) for one in found) and count <= len(VOC_CLASSES)
        names = VOC_CLASSES if painted else numbered(count)
        if painted:
            notes.append("no list of classes: read as VOC's 20 classes; give other names in classes.txt")
        elif len(high) + 1 < count / 2:
            notes.append(
                f"no list of classes: values up to {count - 1} are taken for {count} classes, though only "
                f"{len(high) + 1} occur; if they are shades, write 'name:80,80,80' for each in classes.txt"
            )
    elif len(names) in pixels:
        notes.append(
            f"value {len(names)} occurs, but values 0 to {len(names) - 1} are those of the classes listed "
            f"({quoted(names)}); if 0 is the background, name it in the first line"
        )
    if turned := [one for one in found if one.palette and _shuffled(one)]:
        notes.append(
            f"the palette of {counted(len(turned), 'mask')} has VOC's colours in another order: read by value, not by "
            "colour; if colours are meant, write 'name:red,green,blue' for each class in classes.txt"
        )
    return Meaning(names, lambda one: _indices(one, len(names)), False)


def _known(values: Mapping[int, int], classes: Mapping[int, int]) -> dict[int, int]:
    """For each value the class of what it stands for."""
    return {value: classes[meant] for value, meant in values.items() if meant in classes}


def _indices(one: Looked, count: int) -> dict[int, int]:
    """Values that are places in the list of classes, and 255, which is ignored."""
    known = {index: index for index in range(count)} | {IGNORE: IGNORE}
    return _known(_plain_values(one, ones=True), known)


def _plain_values(one: Looked, ones: bool = False) -> dict[int, int]:
    """For each value of a file the number that it stands for: itself, or a grey colour's; -1 for other colours.

    Args:
        one: What was found in it.
        ones: Whether the white of one bit is a 1, not 255.
    """
    if one.coloured:
        return {value: value % 256 if value % GREY == 0 and value < HALF_TRANSPARENT else -1 for value in one.values}
    return {value: 1 if ones and one.bits == 1 and value else value for value in one.values}


def _plain(one: Looked) -> dict[int, int]:
    """How often each number occurs in a file."""
    numbers = _plain_values(one)
    return {numbers[value]: count for value, count in one.values.items() if numbers[value] >= 0}


def _shuffled(one: Looked) -> bool:
    """Whether a palette's colours are VOC's, but not in VOC's order."""
    indices = {voc_colour(index): index for index in range(len(VOC_CLASSES))} | {VOC_BORDER: IGNORE}
    meant = [(value, indices.get(one.colours[value])) for value in one.values]
    return all(index is not None for _, index in meant) and any(value != index for value, index in meant)


def _painted(one: Looked) -> bool:
    """Whether a palette's colours are VOC's, in VOC's order."""
    return one.palette and all(one.colours[value] == voc_colour(value) for value in one.values)


def _unknown_pixels(found: list[Looked], meant: Meaning) -> int:
    total = 0
    for one in found:
        known = meant.class_of(one)
        total += sum(count for value, count in one.values.items() if value not in known)
    return total


def unknown_values(looked: Mapping[Path, Looked], meant: Meaning) -> list[str]:
    """A note on each value that stands for no class, the most frequent first; of many, on the first few."""
    pixels: Counter[str] = Counter()
    files: dict[str, list[str]] = defaultdict(list)
    for path, one in looked.items():
        known = meant.class_of(one)
        for value, count in one.values.items():
            if value not in known:
                stands_for = one.colours[value] if meant.by_colour else value
                text = written(stands_for, meant.by_colour or one.coloured)
                pixels[text] += count
                files[text].append(shown(path.name))
    notes = [
        f"no class has {text}: {counted(count, 'pixel')} of {counted(len(files[text]), 'mask')} ignored "
        f"({some(files[text])})"
        for text, count in pixels.most_common(_MOST_TOLD)
    ]
    if len(pixels) > _MOST_TOLD:
        rest = pixels.most_common()[_MOST_TOLD:]
        notes.append(
            f"{len(rest)} more values that no class has: {counted(sum(count for _, count in rest), 'pixel')} ignored"
        )
    return notes


_MOST_TOLD = 5
