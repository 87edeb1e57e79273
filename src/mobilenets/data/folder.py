"""A folder of images, one folder per class, with or without ``train/`` and ``val/``."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobilenets.data import images
from mobilenets.data.names import counted, for_validation, natural_key, shown, some
from mobilenets.data.scan import Scanned, scan
from mobilenets.data.types import ImageData, Problem, Split
from mobilenets.errors import UserError
from mobilenets.files import expanded

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "validation", "valid", "test", "testing")  # the first that is there
# Left behind by archivers, file managers, network disks and `mobilenets data`; names that begin with a dot are skipped
# as well.
_LITTER = frozenset(
    {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found", "contact_sheet.png"}
)
_OURS = frozenset({"card.json", "checkpoint.npz"})  # in a model directory, whose pictures are no data
# Pictures that a user may well expect to be read.
_UNSUPPORTED = frozenset({".heic", ".heif", ".avif", ".tif", ".tiff", ".jp2", ".jxl", ".dng", ".cr2", ".nef"})


@dataclass
class _Tree:
    """What lies below a folder: images, and other files by suffix."""

    images: list[Path] = field(default_factory=list)
    others: Counter = field(default_factory=Counter)


_Classes = dict[str, list[Path]]


def load_folder(
    source: str,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    progress: Callable[[int, int], None] | None = None,
) -> ImageData:
    """Reads ``source/CLASS/*.jpg`` or ``source/train/CLASS/*.jpg`` and ``source/val/CLASS/*.jpg``.

    Every file is decoded once to see that it is whole. Without ``val/`` a part of each class is set aside, by
    name and ``seed`` alone.

    Args:
        source: The folder.
        seed: Another seed, another split (of folders without ``val/``).
        val_fraction: Share of each class that is set aside, in (0, 1); 1 sets everything aside, to measure on.
        progress: Called with (files done, files in all) while the files are looked at.

    Raises:
        UserError: there is no such folder, or it does not hold at least two classes with usable images.
    """
    if not 0 < val_fraction <= 1:
        raise UserError(f"val_fraction is {val_fraction}; it must be greater than 0 and at most 1")
    root = expanded(source).absolute()
    typed = Path(source)
    if not root.exists():
        raise UserError(f"{source}: no such folder")
    if not root.is_dir():
        raise UserError(f"{source}: is a file; give the folder that holds one folder of images per class")

    notes: list[str] = []
    train, val = _layout(root, typed, notes)
    paths = [path for part in (train, val) for files in part.values() for path in files]
    found = dict(zip(paths, scan(root, paths, progress), strict=True))
    problems = tuple(
        Problem(shown(str(typed / path.relative_to(root))), result.reason)
        for path, result in found.items()
        if result.reason
    )
    usable = {path for path, result in found.items() if not result.reason}
    _check_usable(typed, train, found)

    classes = tuple(train)
    train = {name: [path for path in files if path in usable] for name, files in train.items()}
    if val:
        val = {name: [path for path in val.get(name, ()) if path in usable] for name in classes}
        absent = [name for name in classes if not val[name]]
        if len(absent) == len(classes):
            raise UserError(f"{source}: none of the images set aside for validation is usable")
        if absent:
            notes.append(f"no validation image of {_quoted(absent)}: nothing to measure it on")
    elif val_fraction == 1:
        train, val = {name: [] for name in classes}, train
    else:
        train, val = _set_aside(root, train, seed, val_fraction, source, notes)
    notes.extend(_duplicates(root, train, val, found))
    return ImageData(
        name=shown(root.resolve().name) or "images",
        source=source.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        classes=classes,
        train=_split(train),
        val=_split(val),
        native_size=None,
        flip=True,
        fingerprint=_fingerprint(root, train, val, found),
        problems=problems,
        notes=tuple(notes),
    )


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The image files among ``paths`` and, sorted, in the folders among them.

    A file that is named itself is taken whatever its suffix, since the user asked for it.

    Raises:
        UserError: a path does not exist, or a folder holds no image.
    """
    result: list[Path] = []
    for given in paths:
        path = expanded(given)
        if path.is_dir():
            inside = _walk(path).images
            if not inside:
                raise UserError(f"{given}: no image in this folder ({_readable()})")
            result.extend(inside)
        elif path.exists():
            result.append(path)
        else:
            raise UserError(f"{given}: no such file or folder")
    return result


def _walk(folder: Path) -> _Tree:
    """Lists ``folder`` in natural order; links to folders are followed, but not twice and never upwards."""
    tree = _Tree()
    seen = {identity(parent) for start in (folder.absolute(), folder.resolve()) for parent in start.parents}

    def visit(directory: Path) -> None:
        try:
            if (place := identity(directory)) in seen:
                return
            seen.add(place)
            with os.scandir(directory) as listing:
                entries = sorted((natural_key(entry.name), entry.name, _is_folder(entry)) for entry in listing)
        except OSError as error:
            raise UserError(f"{directory}: cannot be listed ({error.strerror or error})") from None
        if directory != folder and ours(name for _, name, _ in entries):
            return
        below = []
        for _, name, is_folder in entries:
            suffix = Path(name).suffix.lower()
            if litter(name):
                continue
            if is_folder:
                below.append(directory / name)
            elif suffix in images.SUFFIXES:
                tree.images.append(directory / name)
            else:
                tree.others[suffix] += 1
        for path in below:
            visit(path)

    visit(folder)
    return tree


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; whoever reads it as a file says so
        return False


def ours(names: Iterable[str]) -> bool:
    """Whether the names of what lies in a folder are those of a model directory, or of a run that was not finished."""
    return not _OURS.isdisjoint(names)


def identity(folder: Path) -> tuple[int, int]:
    """What a folder is, whatever way leads to it: links may go in circles."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def litter(name: str) -> bool:
    """Whether a file or folder of that name is nobody's data."""
    return name.startswith(".") or name.lower() in _LITTER


def _readable() -> str:
    return "JPEG, PNG, WebP, BMP and GIF are read"


def _quoted(names: Sequence[str]) -> str:
    return some([f"'{name}'" for name in names], 5)


def _children(folder: Path) -> list[Path]:
    """The folders directly inside, in natural order."""
    return sorted(
        (path for path in folder.iterdir() if path.is_dir() and not litter(path.name)),
        key=lambda path: natural_key(path.name),
    )


def _loose(folder: Path) -> int:
    """The number of images directly inside."""
    return sum(
        path.suffix.lower() in images.SUFFIXES and not litter(path.name) and not path.is_dir()
        for path in folder.iterdir()
    )


def _layout(root: Path, typed: Path, notes: list[str]) -> tuple[_Classes, _Classes]:
    """Finds the classes' images: (train, val), with val empty where none is set aside."""
    try:
        children = {path.name.lower(): path for path in _children(root)}
        train = next((children[name] for name in TRAIN_NAMES if name in children), None)
        vals = [children[name] for name in VAL_NAMES if name in children]
        # A folder "train" full of images is a class of locomotives; one image beside the classes in it is a stray one.
        if train is not None and (
            not any(_walk(path).images for path in _children(train))
            or (_loose(train) and not vals and len(children) > 1)
        ):
            train = None
        loose = _loose(root)
    except OSError as error:
        raise UserError(f"{typed}: cannot be listed ({error.strerror or error})") from None
    if train is None:
        if children and all(path in vals for path in children.values()):
            raise UserError(f"{typed}: has {vals[0].name}/ but no train/; put the training images into train/CLASS/")
        return _classes(root, typed, notes), {}

    val = next((path for path in vals if _walk(path).images), None)
    used = {train, val}
    if unused := [f"{shown(path.name)}/" for path in children.values() if path not in used]:
        notes.append(f"not used, because there is {train.name}/: {some(unused, 5)}")
    if loose:
        notes.append(f"not used, because in no class: {counted(loose, 'image')} directly in {typed}")
    train_classes = _classes(train, typed / train.name, notes)
    if val is None:
        return train_classes, {}
    if val.name.lower() != VAL_NAMES[0]:
        notes.append(f"{val.name}/ is used for validation")
    val_classes = _classes(val, typed / val.name, notes, least=1)
    if strangers := [name for name in val_classes if name not in train_classes]:
        raise UserError(
            f"{typed / val.name}: class {_quoted(strangers)} is not in {train.name}/, "
            f"which has {_quoted(list(train_classes))}; add training images or take it out"
        )
    return train_classes, val_classes


def _classes(folder: Path, typed: Path, notes: list[str], least: int = 2) -> _Classes:
    """The images of each class folder in ``folder``; at least ``least`` classes, or UserError."""
    how = f"put them in one folder per class: {typed}/CLASS/*.jpg"
    classes: _Classes = {}
    others: Counter = Counter()
    for child in _children(folder):
        tree = _walk(child)
        others += tree.others
        if tree.images:
            classes.setdefault(shown(child.name), []).extend(tree.images)
        elif tree.others:
            notes.append(f"no class: {typed / shown(child.name)} holds no image, only {_listed(tree.others)}")
        else:
            notes.append(f"no class: {typed / shown(child.name)} is empty")
    loose = _loose(folder)
    unread = Counter({suffix: count for suffix, count in others.items() if suffix in _UNSUPPORTED})
    if not classes:
        if loose:
            raise UserError(f"{typed}: holds {counted(loose, 'image')} directly, without a class; {how}")
        everything = _walk(folder).others
        there = f", only {_listed(everything)}" if everything else ""
        raise UserError(f"{typed}: no images inside{there} ({_readable()}); {how}")
    if len(classes) < least:
        (name,) = classes
        raise UserError(
            f"{typed}: only one class, '{name}'; a classifier needs at least two, "
            f"one folder each{_deeper(folder, typed)}"
        )
    if loose:
        notes.append(f"not used, because in no class: {counted(loose, 'image')} directly in {typed}")
    if unread:
        notes.append(f"not used in {typed}: {_listed(unread)} ({_readable()})")
    return classes


def _deeper(folder: Path, typed: Path) -> str:
    """A hint for archives that unpack into a folder within a folder."""
    for child in _children(folder):
        below = [path for path in _children(child) if _walk(path).images]
        if len(below) > 1 and not _loose(child):
            return f" (or did you mean {typed / shown(child.name)}?)"
    return ""


def _listed(suffixes: Counter) -> str:
    parts = [f"{count} {suffix or 'without suffix'}" for suffix, count in suffixes.most_common()]
    return some(parts) + (" file" if suffixes.total() == 1 else " files")


def _check_usable(typed: Path, train: _Classes, found: dict[Path, Scanned]) -> None:
    """Refuses a class whose every training file is broken."""
    for name, files in train.items():
        if all(found[path].reason for path in files):
            broken = [f"{shown(path.name)}: {found[path].reason}" for path in files]
            raise UserError(
                f"{typed}: class '{name}' has no usable training image ({some(broken)}); "
                "repair these files or remove the folder"
            )


def _relative(root: Path, path: Path) -> str:
    return shown(path.relative_to(root).as_posix())


def _set_aside(
    root: Path, train: _Classes, seed: int, fraction: float, source: str, notes: list[str]
) -> tuple[_Classes, _Classes]:
    kept: _Classes = {}
    held: _Classes = {}
    for name, files in train.items():
        chosen = for_validation([_relative(root, path) for path in files], seed, fraction)
        kept[name] = [path for index, path in enumerate(files) if index not in chosen]
        held[name] = [path for index, path in enumerate(files) if index in chosen]
    single = [name for name, files in held.items() if not files]
    if len(single) == len(train):
        raise UserError(f"{source}: too few images, one in each class; give each class at least two, better fifty")
    if single:
        notes.append(f"only one usable image of {_quoted(single)}: nothing to measure it on")
    return kept, held


def _duplicates(root: Path, train: _Classes, val: _Classes, found: dict[Path, Scanned]) -> list[str]:
    """Notes on files with the same bytes, where they falsify a measurement."""
    notes = []
    seen = {found[path].digest for files in train.values() for path in files}
    held = [path for files in val.values() for path in files]
    if twins := [path for path in held if found[path].digest in seen]:
        notes.append(
            f"in training too, byte by byte: {len(twins)} of {counted(len(held), 'validation image')} "
            f"({some([_relative(root, path) for path in twins])}); accuracy will look better than it is"
        )
    owners: dict[str, dict[str, Path]] = defaultdict(dict)
    for part in (train, val):
        for name, files in part.items():
            for path in files:
                owners[found[path].digest].setdefault(name, path)
    if torn := [list(by_class.values()) for by_class in owners.values() if len(by_class) > 1]:
        example = " = ".join(_relative(root, path) for path in torn[0][:2])
        notes.append(f"in more than one class: {counted(len(torn), 'image')} ({example})")
    return notes


def _split(classes: _Classes) -> Split:
    labels = [label for label, files in enumerate(classes.values()) for _ in files]
    paths = tuple(path for files in classes.values() for path in files)
    return Split(paths, np.array(labels, np.int64))


def _fingerprint(root: Path, train: _Classes, val: _Classes, found: dict[Path, Scanned]) -> str:
    digest = hashlib.sha256()
    for part, classes in (("train", train), ("val", val)):
        for name, files in classes.items():
            digest.update(f"{part}\0{name}\0{len(files)}\n".encode())
            for path in files:
                digest.update(f"{_relative(root, path)}\0{found[path].digest}\n".encode())
    return digest.hexdigest()
