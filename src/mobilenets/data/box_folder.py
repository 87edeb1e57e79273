"""A folder of images with boxes, as COCO, Pascal VOC or YOLO write them."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from mobilenets.data import coco, upright, voc, yolo
from mobilenets.data.box_read import Annotated, Lost, Tree, duplicates, first_reason, folder_of, held_back, walk
from mobilenets.data.boxes import BoxData, BoxSplit
from mobilenets.data.names import counted, shown, some
from mobilenets.data.scan import Scanned, scan
from mobilenets.data.types import Problem
from mobilenets.errors import UserError

# A folder that holds more than one of them is read as the first.
_FORMS = (coco, voc, yolo)
_HOW = (
    "a COCO .json, Pascal VOC .xml beside the images or in Annotations/, or YOLO .txt with data.yaml or classes.txt "
    "were looked for"
)


def load_boxes(
    source: str | os.PathLike,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    progress: Callable[[int, int], None] | None = None,
) -> BoxData:
    """Loads a data set with boxes: ``stamps``, or a folder annotated as COCO, Pascal VOC or YOLO do it.

    Every image is decoded once to see that it is whole. Where the folder sets none aside, a part of the images with
    objects and the same part of those without go into validation, by name and ``seed`` alone.

    Args:
        source: "stamps" or the folder.
        seed: Another seed, another split (of folders that set nothing aside).
        val_fraction: Share of the images that is set aside, in (0, 1); 1 sets everything aside, to measure on.
        progress: Called with (files done, files in all) while the images are looked at.

    Raises:
        UserError: there is no such folder, it is not annotated in one of these forms, an annotation file is damaged,
            or there is no object to learn from or to measure on.
    """
    source = os.fspath(source)
    if source == "stamps":
        from mobilenets.data.scenes import scenes

        return scenes()
    root = folder_of(source, val_fraction, "boxes")
    tree = walk(root, Path(source))
    notes: list[str] = []
    lost = Lost()
    form = _form(tree, notes)
    reading = form.read(tree, lost)
    notes.extend(reading.notes)
    if not reading.classes:
        raise UserError(f"{source}: its annotations ({form.NAME}) name no class{lost.example()}")
    paths = list(dict.fromkeys(entry.image for entry in (*reading.train, *reading.val)))
    found = dict(zip(paths, scan(root, paths, progress), strict=True))
    sizes = upright.sizes_of([path for path in paths if not found[path].reason])
    problems = [
        Problem(tree.called(path), found[path].reason or sizes[path])
        for path in paths
        if found[path].reason or isinstance(sizes[path], str)
    ]
    sizes = {path: size for path, size in sizes.items() if not isinstance(size, str)}
    turns = upright.turns_of([*reading.train, *reading.val], sizes, "boxes", notes)
    train, val = (_split(part, sizes, turns, lost, notes) for part in (reading.train, reading.val))

    if len(val):
        if not len(train):
            raise UserError(f"{source}: none of the images to train on is usable{first_reason(problems, lost)}")
    elif reading.val:
        raise UserError(
            f"{source}: none of the images set aside for validation is usable{first_reason(problems, lost)}"
        )
    elif val_fraction == 1:
        train, val = val, train
    else:
        if sum(not ignored.all() for ignored in train.ignored) == 1:
            raise UserError(f"{source}: only one image has objects; draw boxes in at least two, better fifty")
        train, val = _set_aside(tree, train, seed, val_fraction)
    _check_objects(source, reading.classes, train, val, val_fraction, first_reason(problems, lost), notes)
    notes.extend(duplicates(tree, train.images, val.images, found, "precision"))
    further, more = lost.told()
    return BoxData(
        name=shown(root.resolve().name) or "images",
        source=source.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        form=form.NAME,
        classes=reading.classes,
        train=train,
        val=val,
        native_size=None,
        flip=True,
        fingerprint=_fingerprint(tree, reading.classes, train, val, found),
        problems=(*problems, *further),
        notes=(*notes, *more),
    )


def _form(tree: Tree, notes: list[str]) -> ModuleType:
    """The module that reads this folder."""
    found = [form for form in _FORMS if form.recognize(tree)]
    if not found:
        if not tree.images:
            raise UserError(f"{tree.typed}: no images inside; give a folder of images with boxes ({_HOW})")
        extra = yolo.hint(tree)
        raise UserError(
            f"{tree.typed}: {counted(len(tree.images), 'image')} but no boxes; "
            + (extra or f"{_HOW}; draw boxes in one of these forms, or train a classifier on it")
        )
    if len(found) > 1:
        notes.append(f"read as {found[0].NAME}, though there is also {', '.join(form.NAME for form in found[1:])}")
    return found[0]


def _turned(boxes: np.ndarray, turn: int, width: int, height: int) -> np.ndarray:
    """Boxes on a stored picture of that size, seen after EXIF's orientation has turned it."""
    left, top, right, bottom = boxes.T
    if turn in (2, 3, 7, 8):  # left and right change places
        left, right = width - right, width - left
    if turn in (3, 4, 6, 7):  # top and bottom change places
        top, bottom = height - bottom, height - top
    if turn >= 5:
        left, top, right, bottom = top, left, bottom, right
    return np.stack([left, top, right, bottom], axis=1)


def _split(
    entries: Sequence[Annotated],
    sizes: dict[Path, tuple[int, int]],
    turns: dict[Path, int],
    lost: Lost,
    notes: list[str],
) -> BoxSplit:
    """The usable images with their boxes clipped to them; what is left out is told to ``lost``."""
    kept = []
    for entry in entries:
        size = sizes.get(entry.image)
        if size is None:
            continue  # told already
        if len(entry.boxes) and entry.size not in (None, size) and entry.image not in turns:
            (width, height), name = entry.size, shown(entry.image.name)
            why = f"{name}: {size[0]}x{size[1]} pixels, not {width}x{height}"
            lost.add("size", entry.origin, name=name, why=why)
            continue
        kept.append(entry)
    shapes = np.array([sizes[entry.image] for entry in kept], np.int64).reshape(-1, 2)
    boxes = [_in_pixels(entry, size, turns.get(entry.image)) for entry, size in zip(kept, shapes, strict=True)]
    counts = np.array([len(each) for each in boxes], np.int64)
    raw = np.concatenate([np.zeros((0, 4)), *boxes])
    owners = np.repeat(np.arange(len(kept)), counts)
    limits = np.tile(shapes[owners], 2)
    finite = np.isfinite(raw).all(axis=1)
    clipped = np.clip(raw, 0, limits).astype(np.float32)
    empty = ~((raw[:, 0] < raw[:, 2]) & (raw[:, 1] < raw[:, 3]))
    good = finite & ~empty & (clipped[:, 0] < clipped[:, 2]) & (clipped[:, 1] < clipped[:, 3])
    starts = np.cumsum(counts) - counts
    for index in np.flatnonzero(~good):
        entry = kept[owners[index]]
        kind = "not numbers" if not finite[index] else "empty" if empty[index] else "outside"
        place = shown(entry.places[index - starts[owners[index]]])
        lost.add(kind, entry.origin, place, name=shown(entry.image.name))
    # Less than a pixel is rounding, or a tool that counts from 0 where VOC counts from 1.
    cut = good & (np.abs(np.where(good[:, None], raw, 0) - np.where(good[:, None], clipped, 0)).max(axis=1) > 1.01)
    if cut.any():
        names = list(dict.fromkeys(shown(kept[owner].image.name) for owner in owners[cut]))
        count = "1 box was" if cut.sum() == 1 else f"{cut.sum()} boxes were"
        notes.append(f"{count} cut off at the edge of the image, more than a pixel beyond it ({some(names)})")
    columns = [], [], []
    for number, entry in enumerate(kept):
        part = slice(starts[number], starts[number] + counts[number])
        mask = good[part]
        for column, values in zip(columns, (clipped[part], entry.labels, entry.ignored), strict=True):
            column.append(values[mask])
    return BoxSplit(tuple(entry.image for entry in kept), shapes, *map(tuple, columns))


def _in_pixels(entry: Annotated, size: np.ndarray, turn: int | None) -> np.ndarray:
    if entry.shares:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is left out later
            return entry.boxes * np.tile(size, 2)
    return _turned(entry.boxes, turn, *entry.size) if turn else entry.boxes


def _set_aside(tree: Tree, split: BoxSplit, seed: int, fraction: float) -> tuple[BoxSplit, BoxSplit]:
    held = held_back(tree, split.images, [bool(ignored.all()) for ignored in split.ignored], seed, fraction)
    return split.chosen(np.flatnonzero(~held)), split.chosen(np.flatnonzero(held))


def _check_objects(
    source: str,
    classes: Sequence[str],
    train: BoxSplit,
    val: BoxSplit,
    fraction: float,
    first: str,
    notes: list[str],
) -> None:
    """Refuses a data set with nothing to find; notes classes that are nowhere to be found in a part."""
    if not train.objects + val.objects:
        raise UserError(f"{source}: no object in any usable image{first}; draw boxes in at least two images")
    if not val.objects:
        raise UserError(f"{source}: no object in the images to measure on{first}; draw boxes in them")
    if not train.objects and (len(train) or fraction != 1):
        raise UserError(f"{source}: no object in the images to train on{first}; draw boxes in them")
    for split, purpose in ((train, "training"), (val, "validation")):
        counts = np.zeros(len(classes), np.int64)
        for labels, ignored in zip(split.labels, split.ignored, strict=True):
            np.add.at(counts, labels[~ignored], 1)
        absent = [f"'{name}'" for name, count in zip(classes, counts, strict=True) if not count]
        if absent and len(split):
            end = "it cannot be learned" if purpose == "training" else "nothing to measure it on"
            notes.append(f"no {purpose} object of {some(absent, 5)}: {end}")


def _fingerprint(tree: Tree, classes: Sequence[str], train: BoxSplit, val: BoxSplit, found: dict[Path, Scanned]) -> str:
    digest = hashlib.sha256("\0".join(classes).encode())
    for part, split in (("train", train), ("val", val)):
        digest.update(f"\n{part}\0{len(split)}\n".encode())
        for path, boxes, labels, ignored in zip(split.images, split.boxes, split.labels, split.ignored, strict=True):
            digest.update(f"{shown(tree.relative(path))}\0{found[path].digest}\0{len(labels)}\n".encode())
            for values, kind in ((boxes, "<f4"), (labels, "<i8"), (ignored, "|b1")):
                digest.update(np.ascontiguousarray(values, kind))
    return digest.hexdigest()
