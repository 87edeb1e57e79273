"""What the readers of boxes and masks share: the files of a folder, its parts, and what was left out."""

import os
import posixpath
import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobilenets.data import images
from mobilenets.data.folder import VAL_NAMES, identity, litter, ours
from mobilenets.data.names import counted, for_validation, natural_key, shown, some
from mobilenets.data.scan import Scanned
from mobilenets.data.types import Problem
from mobilenets.errors import UserError
from mobilenets.files import expanded

# How many of one kind are named each; more become one note. Boxes may be wrong by the thousand, and so may a list of
# images of which only some were downloaded.
_BOXES_NAMED = 10
_FILES_NAMED = 1000

# What may be wrong: of one, of many.
_KINDS = {
    "outside": ("box lies outside the image", "boxes lie outside their image"),
    "empty": ("box has no area", "boxes have no area"),
    "not numbers": ("box is not made of numbers", "boxes are not made of numbers"),
    "no box": ("object has no box", "objects have no box"),
    "class": ("class is not in the list of classes", "boxes have a class that is not in the list of classes"),
    "new class": ("class does not occur in training", "boxes have a class that does not occur in training"),
    "no image": ("belongs to an image that is not listed", "boxes belong to images that are not listed"),
    "malformed": ("entry is malformed", "entries are malformed"),
    "line": ("is not 'class x y width height' in numbers", "lines are not 'class x y width height' in numbers"),
    "missing": ("image is missing", "images are missing"),
    "format": ("image is of a kind that is not read", "images are of a kind that is not read"),
    "strayed": ("image lies outside the folder and is not read", "images lie outside the folder"),
    "size": ("image has another size than its annotation says", "images have another size than their annotation says"),
    "alone": ("has no image of its name", "masks have no image of their name"),
    "mask size": ("has another size than its image", "masks have another size than their image"),
    "bare mask": ("has no pixel of any class", "masks have no pixel of any class"),
    "outline": ("object has no usable outline", "objects have no usable outline"),
    "twice": ("annotates an image that another file annotates", "files annotate an image that another file annotates"),
}


@dataclass(frozen=True)
class Tree:
    """The files below a folder, by their relative name: composed (NFC), with "/", in natural order.

    Attributes:
        root: The folder, absolute.
        typed: The folder as the user typed it.
        images: Files that by their suffix are images that can be read.
        others: All other files.
        folders: The folders; "" is ``root``.
    """

    root: Path
    typed: Path
    images: dict[str, Path]
    others: dict[str, Path]
    folders: frozenset[str]

    def called(self, path: Path) -> str:
        """The name of a file of this tree as the user would type it, fit to print."""
        return shown(str(self.typed / path.relative_to(self.root)))

    def relative(self, path: Path) -> str:
        """The key under which a file of this tree is found."""
        return _composed(path.relative_to(self.root).as_posix())

    def ending(self, *suffixes: str) -> list[Path]:
        """The other files with one of these suffixes (lower case)."""
        return [path for name, path in self.others.items() if name.lower().endswith(suffixes)]

    def inside(self, folder: str, name: str) -> str | None:
        """The key that ``name``, written in a file of ``folder``, stands for; None where it leads out of the tree."""
        name = _composed(name.replace("\\", "/"))
        if name.startswith("/"):
            roots = (_composed(path.as_posix()).rstrip("/") + "/" for path in (self.root, self.root.resolve()))
            start = next((root for root in roots if name.startswith(root)), None)
            if start is None:
                return None
            folder, name = "", name[len(start) :]
        elif re.match("[A-Za-z]:/", name):
            return None
        key = posixpath.normpath(posixpath.join(folder, name))
        return None if key == ".." or key.startswith("../") else "" if key == "." else key


def walk(root: Path, typed: Path) -> Tree:
    """Lists everything below ``root``; links to folders are followed, but not twice and never upwards.

    Raises:
        UserError: a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise UserError(f"{shown(str(error.filename))}: cannot be listed ({error.strerror or error})")

    found: dict[str, Path] = {}
    others: dict[str, Path] = {}
    folders = set()
    seen = {identity(parent) for start in (root, root.resolve()) for parent in start.parents}
    for directory, below, names in os.walk(root, onerror=fail, followlinks=True):
        here = Path(directory)
        if identity(here) in seen:
            below.clear()
            continue
        seen.add(identity(here))
        if here != root and ours(names):
            below.clear()
            continue
        below[:] = sorted((name for name in below if not litter(name)), key=natural_key)
        relative = here.relative_to(root).as_posix()
        prefix = "" if relative == "." else f"{_composed(relative)}/"
        folders.add(prefix.rstrip("/"))
        for name in sorted(names, key=natural_key):
            if not litter(name):
                is_image = posixpath.splitext(name)[1].lower() in images.SUFFIXES
                (found if is_image else others)[prefix + _composed(name)] = here / name
    return Tree(root, typed, found, others, frozenset(folders))


def _composed(name: str) -> str:
    # A name in an annotation is composed or not, as its writer's system had it, and so is the file's.
    return unicodedata.normalize("NFC", name)


@dataclass
class Lost:
    """Collects what is left out, so that nothing is lost silently and no list has ten thousand lines."""

    _found: dict[str, list[tuple[Problem, str]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, path: str, where: str = "", name: str = "", why: str = "") -> None:
        """One more.

        Args:
            kind: One of ``_KINDS``.
            path: The file to look into, as the user would type it.
            where: The place in that file ("line 3"); "" where the whole file is meant.
            name: What a summary calls it, by default the file's name.
            why: More about this one.
        """
        reason = (f"{where}: " if where else "") + _KINDS[kind][0] + (f" ({why})" if why else "")
        key = kind if where else f"{kind}\0"
        self._found[key].append((Problem(path, reason), name or posixpath.basename(path)))

    def told(self) -> tuple[list[Problem], list[str]]:
        """Few of a kind as problems, many as one note."""
        problems: list[Problem] = []
        notes = []
        for key, entries in self._found.items():
            kind = key.rstrip("\0")
            if len(entries) <= (_BOXES_NAMED if key == kind else _FILES_NAMED):
                problems.extend(problem for problem, _ in entries)
            else:
                names = list(dict.fromkeys(name for _, name in entries))
                notes.append(f"{len(entries)} {_KINDS[kind][1]} and were left out ({some(names)})")
        return problems, notes

    def example(self) -> str:
        """ " (PATH: REASON)" of the first; "" where nothing was lost."""
        first = next((entries[0][0] for entries in self._found.values()), None)
        return f" ({first.path}: {first.reason})" if first else ""


@dataclass(frozen=True, eq=False)
class Annotated:
    """One image and its objects as a reader found them, before anybody looked at the image.

    Attributes:
        image: The file.
        origin: The annotation file, as the user would type it.
        size: Width and height in pixels that the annotation gives; None where it gives none.
        boxes: float64 ``(objects, 4)``: left, top, right, bottom as edges, in pixels or, with ``shares``, in shares
            of width and height. Not checked: they may be empty, outside or NaN.
        labels: int64 ``(objects,)``.
        ignored: bool ``(objects,)``.
        places: Where in ``origin`` each box stands: "line 3".
        shares: Whether ``boxes`` are shares of the upright image.
    """

    image: Path
    origin: str
    size: tuple[int, int] | None
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    places: Sequence[str]
    shares: bool = False


@dataclass(frozen=True)
class Reading:
    """What a reader found in a folder.

    Attributes:
        classes: Their names.
        train: The images to learn from.
        val: The images set aside; empty where the folder sets none aside.
        notes: One-line warnings for the user.
    """

    classes: tuple[str, ...]
    train: list[Annotated]
    val: list[Annotated]
    notes: list[str]


_PART = re.compile(r"(train|training|val|validation|valid|test|testing)(?:\d{4})?")


def part_of(words: Iterable[str]) -> str:
    """Which part of the data a file belongs to, by the first of ``words`` that names one; "" where none does."""
    found = next((found[1] for word in words if (found := _PART.fullmatch(word.casefold()))), "")
    return "train" if found == "training" else found


def choose_parts(parts: Iterable[str], notes: list[str]) -> tuple[set[str], str | None]:
    """Which parts to learn from and which one to measure on (None: none is set aside), of all that occur.

    As in a folder of classes: the first of val, validation, valid, test that is there; what is not used is noted.
    """
    present = dict.fromkeys(parts)
    val = next((name for name in VAL_NAMES if name in present), None)
    train = "train" if "train" in present else ""
    if val is None or train not in present:
        if val is not None:
            notes.append(f"there is nothing to train on but {', '.join(present)}: that is what is split")
        unnamed = "train" in present and "" in present
        present = {part: None for part in present if part or not unnamed}
        if unnamed:
            notes.append("not used, because there is a part called train: files that belong to no part")
        return set(present), None
    if val != VAL_NAMES[0]:
        notes.append(f"{val} is used for validation")
    if unused := [part or "files that belong to no part" for part in present if part not in (train, val)]:
        notes.append(f"not used: {', '.join(unused)}")
    return {train}, val


def read_file(tree: Tree, path: Path, limit: int) -> bytes:
    """The bytes of an annotation file.

    Raises:
        UserError: it cannot be read, is no regular file, or holds more than ``limit`` bytes.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{tree.called(path)}: not a regular file; remove it")
        if status.st_size > limit:
            size, most = status.st_size / 2**20, limit // 2**20
            raise UserError(f"{tree.called(path)}: {size:.0f} MB; an annotation file of its kind has at most {most} MB")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{tree.called(path)}: cannot be read ({error.strerror or error})") from error


def damaged(tree: Tree, path: Path, kind: str, where: str, why: object) -> UserError:
    """What to raise for a file that does not parse."""
    reason = shown(" ".join(str(why).split()))[:120]
    return UserError(f"{tree.called(path)}, {where}: damaged {kind} ({reason}); repair it or take the file out")


def class_indices(names: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """Class names without repetitions, and for each of ``names`` its place among them."""
    printable = [shown(name.strip()) or "?" for name in names]
    classes = tuple(dict.fromkeys(printable))
    places = {name: index for index, name in enumerate(classes)}
    return classes, [places[name] for name in printable]


def first_reason(problems: Sequence[Problem], lost: Lost) -> str:
    """ " (PATH: REASON)" of the first file or entry that was left out; "" where none was."""
    return f" ({problems[0].path}: {problems[0].reason})" if problems else lost.example()


def duplicates(
    tree: Tree, train: Sequence[Path], val: Sequence[Path], found: dict[Path, Scanned], measure: str
) -> list[str]:
    """A note on validation images that are in training, too."""
    seen = {found[path].digest for path in train}
    twins = [shown(tree.relative(path)) for path in val if found[path].digest in seen]
    if not twins:
        return []
    return [
        f"in training too, byte by byte: {len(twins)} of {counted(len(val), 'validation image')} ({some(twins)}); "
        f"{measure} will look better than it is"
    ]


def folder_of(source: str, val_fraction: float, what: str) -> Path:
    """The folder that the user means, absolute.

    Raises:
        UserError: there is no such folder, or ``val_fraction`` is out of its range.
    """
    one_word = source and not any(mark in source for mark in "/\\.~")
    if not source or (one_word and not Path(source).exists()):
        raise UserError(f"'{source}': neither a folder here nor a built-in data set with {what} (stamps is built in)")
    if not 0 < val_fraction <= 1:
        raise UserError(f"val_fraction is {val_fraction}; it must be greater than 0 and at most 1")
    root = expanded(source).absolute()
    if not root.exists():
        raise UserError(f"{source}: no such folder")
    if not root.is_dir():
        raise UserError(f"{source}: is a file; give the folder that holds the images and their annotations")
    return root


def held_back(tree: Tree, paths: Sequence[Path], bare: Sequence[bool], seed: int, fraction: float) -> np.ndarray:
    """Which images go into validation: the same part of those with objects and of those that are ``bare``; bool."""
    names = [shown(tree.relative(path)) for path in paths]
    empty, held = np.array(bare, bool), np.zeros(len(paths), bool)
    for group in (np.flatnonzero(~empty), np.flatnonzero(empty)):
        held[group[sorted(for_validation([names[index] for index in group], seed, fraction))]] = True
    return held
