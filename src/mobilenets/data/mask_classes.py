"""What the values and colours of masks stand for: lists of classes, and what is known without one."""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilenets.architectures import MOST_CLASSES
from mobilenets.data.box_read import Tree, read_file
from mobilenets.data.masks import BACKGROUND
from mobilenets.data.names import shown, some
from mobilenets.errors import UserError

LISTS = ("classes.txt", "labelmap.txt", "class_names.txt", "label_colors.txt", "labels.txt")
_LIMIT, _LINE = 2**20, 1000  # bytes of a list, characters of a line
# Names under which a colour stands for pixels that are no class.
_IGNORED = frozenset({"void", "ignore", "ignored", "__ignore__", "unlabeled", "unlabelled"})
_NUMBERS = r"(\d{1,3})\s*[,\s]\s*(\d{1,3})\s*[,\s]\s*(\d{1,3})"
# As CVAT writes it ("name:r,g,b:parts:actions"), and as CamVid does ("r g b name").
_NAME_FIRST = re.compile(rf"(.+?)\s*[:\t]\s*{_NUMBERS}(?:\s*:.*)?")
_COLOUR_FIRST = re.compile(rf"{_NUMBERS}\s+(\D.*)")

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def voc_colour(index: int) -> int:
    """VOC's colour of a class, ``red << 16 | green << 8 | blue``: its bits dealt out to the three, highest first."""
    channels = [0, 0, 0]
    for place in range(8):
        channels[place % 3] |= (index >> place & 1) << 7 - place // 3
    return channels[0] << 16 | channels[1] << 8 | channels[2]


VOC_BORDER = voc_colour(255)  # what VOC paints around objects


@dataclass(frozen=True)
class Listed:
    """A list of classes.

    Attributes:
        names: In the order of the list.
        colours: The colour of each, ``red << 16 | green << 8 | blue``; empty where the list gives none.
        ignored: Colours that stand for no class.
        file: The file, as the user would type it.
    """

    names: tuple[str, ...]
    colours: tuple[int, ...]
    ignored: frozenset[int]
    file: str


def find_list(tree: Tree, notes: list[str]) -> Listed | None:
    """The list of classes of a folder; None where it has none.

    Raises:
        UserError: it cannot be read, names a class twice, or has colours for some of its classes only.
    """
    found = [key for key in tree.others if posixpath.basename(key).lower() in LISTS]
    # The one nearest to the root; among those, the first name in the list.
    found.sort(key=lambda key: (key.count("/"), LISTS.index(posixpath.basename(key).lower()), key))
    if not found:
        return None
    if len(found) > 1:
        notes.append(f"classes are those of {found[0]}; not used: {some(found[1:])}")
    return _parsed(tree, tree.others[found[0]], notes)


def _parsed(tree: Tree, path: Path, notes: list[str]) -> Listed:
    called = tree.called(path)
    text = read_file(tree, path, _LIMIT).decode("utf-8-sig", "replace")
    names: dict[str, int | None] = {}
    dropped: dict[str, int | None] = {}
    taken: set[int] = set()
    for number, line in enumerate(text.splitlines(), 1):
        # Runs of blanks as one, so that nothing is looked for in them.
        line = "\t".join(filter(None, (" ".join(part.split()) for part in line.split("\t"))))
        if not line or line.startswith("#"):
            continue
        if len(line) > _LINE:
            raise UserError(f"{called}, line {number}: {len(line)} characters; that is no name of a class")
        name, colour = _entry(line, f"{called}, line {number}")
        if name.casefold() in _IGNORED and (colour is not None or name == "__ignore__"):
            dropped[name] = colour
            taken |= {colour} - {None}
            continue
        if name in names:
            raise UserError(f"{called}, line {number}: '{name}' is there twice; give every class a name of its own")
        if colour in taken:
            raise UserError(
                f"{called}, line {number}: the colour of '{name}' is that of another class; give it its own"
            )
        names[name] = colour
        taken |= {colour} - {None}
        if len(names) > MOST_CLASSES:
            raise UserError(f"{called}, line {number}: masks have at most {MOST_CLASSES} classes")
    if not names:
        raise UserError(f"{called}: names no class; write one a line, or take the file out")
    lacking = [name for name, colour in names.items() if colour is None]
    if lacking and len(lacking) < len(names):
        raise UserError(f"{called}: no colour for {some(lacking)}; write 'name:red,green,blue' for every class or none")
    if coloured := [name for name, colour in dropped.items() if colour is not None]:
        notes.append(f"no class, by its name in {called}, and so ignored: {some(coloured)}")
    ignored = frozenset(colour for colour in dropped.values() if colour is not None)
    return Listed(tuple(names), () if lacking else tuple(names.values()), ignored, called)


def _entry(line: str, where: str) -> tuple[str, int | None]:
    """Name and colour in one line."""
    if found := _NAME_FIRST.fullmatch(line):
        name, *channels = found.groups()
    elif found := _COLOUR_FIRST.fullmatch(line):
        *channels, name = found.groups()
    else:
        return shown(line.replace("\t", " ")), None
    values = [int(channel) for channel in channels]
    if max(values) > 255:
        raise UserError(f"{where}: a colour is three numbers from 0 to 255, not {','.join(channels)}")
    return shown(name.strip()), values[0] << 16 | values[1] << 8 | values[2]


def background_first(listed: Listed) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and colours with the background in front, where there is one: colours have no order of their own."""
    order = sorted(range(len(listed.names)), key=lambda index: listed.names[index].casefold() not in BACKGROUND)
    return tuple(listed.names[index] for index in order), tuple(listed.colours[index] for index in order)


def numbered(count: int) -> tuple[str, ...]:
    """Names of classes that have none."""
    return ("background", "object") if count == 2 else ("background", *(f"class {n}" for n in range(1, count)))


def written(value: int, coloured: bool) -> str:
    """A value of a mask as a message shows it."""
    if not coloured:
        return f"value {value}"
    return f"colour {value >> 16},{value >> 8 & 255},{value & 255}" if value < 1 << 24 else "a half transparent colour"


def quoted(names: Sequence[str], limit: int = 5) -> str:
    """The first few of ``names``, each in quotes."""
    return some([f"'{name}'" for name in names], limit)
