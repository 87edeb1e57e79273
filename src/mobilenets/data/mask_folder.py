"""A folder of images with masks: image files in pairs, or outlines in COCO's JSON."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from mobilenets.data import coco, mask_coco, mask_pairs, upright, voc, yolo
from mobilenets.data.box_read import Lost, Tree, duplicates, first_reason, folder_of, held_back, walk
from mobilenets.data.mask_read import Masked
from mobilenets.data.masks import MaskData, MaskSplit, has_background
from mobilenets.data.names import counted, shown, some
from mobilenets.data.scan import Scanned, scan
from mobilenets.data.types import Problem
from mobilenets.errors import UserError

# A folder that holds both is read as the first.
_FORMS = (mask_pairs, mask_coco)
_HOW = (
    "PNG masks in masks/, labels/, annotations/ or SegmentationClass/ beside images/ or JPEGImages/, NAME_mask.png "
    "beside NAME.jpg, or a COCO .json with outlines were looked for"
)


def load_masks(
    source: str | os.PathLike,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    progress: Callable[[int, int], None] | None = None,
) -> MaskData:
    """Loads a data set with masks: ``stamps``, or a folder of images with mask files or COCO's outlines.

    Every image and mask is decoded once to see that it is whole and which classes it shows. Where the folder sets
    none aside, a part of the images goes into validation, by name and ``seed`` alone.

    Args:
        source: "stamps" or the folder.
        seed: Another seed, another split (of folders that set nothing aside).
        val_fraction: Share of the images that is set aside, in (0, 1); 1 sets everything aside, to measure on.
        progress: Called with (files done, files in all) while the masks, and then the images, are looked at.

    Raises:
        UserError: there is no such folder, it holds no masks, they cannot be understood, or there is nothing to learn
            from or to measure on.
    """
    source = os.fspath(source)
    if source == "stamps":
        from mobilenets.data.scenes import scene_masks

        return scene_masks()
    root = folder_of(source, val_fraction, "masks")
    tree = walk(root, Path(source))
    notes: list[str] = []
    lost = Lost()
    form = _form(tree, notes)
    reading = form.read(tree, lost, progress)
    notes.extend(reading.notes)
    classes = reading.classes
    paths = list(dict.fromkeys(entry.image for entry in (*reading.train, *reading.val)))
    found = dict(zip(paths, scan(root, paths, progress), strict=True))
    sizes = upright.sizes_of([path for path in paths if not found[path].reason])
    problems = [
        *reading.problems,
        *(
            Problem(tree.called(path), found[path].reason or sizes[path])
            for path in paths
            if found[path].reason or isinstance(sizes[path], str)
        ),
    ]
    sizes = {path: size for path, size in sizes.items() if not isinstance(size, str)}
    turns = upright.turns_of([*reading.train, *reading.val], sizes, "masks", notes)
    train, val = (_usable(part, sizes, turns, lost) for part in (reading.train, reading.val))
    if not train + val:
        raise UserError(f"{source}: no image with a usable mask{first_reason(problems, lost)}")
    if val and not train:
        raise UserError(f"{source}: none of the images to train on is usable{first_reason(problems, lost)}")
    if reading.val and not val:
        raise UserError(
            f"{source}: none of the images set aside for validation is usable{first_reason(problems, lost)}"
        )
    if not val:
        train, val = _set_aside(tree, source, train, has_background(classes), seed, val_fraction)
    split = {part: _split(entries, sizes, turns, len(classes)) for part, entries in (("train", train), ("val", val))}
    _check_classes(source, classes, split["train"], split["val"], notes)
    notes.extend(duplicates(tree, split["train"].images, split["val"].images, found, "what is measured on them"))
    further, more = lost.told()
    return MaskData(
        name=shown(root.resolve().name) or "images",
        source=source.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        form=form.NAME,
        classes=classes,
        **split,
        native_size=None,
        flip=True,
        fingerprint=_fingerprint(tree, classes, {"train": train, "val": val}, found),
        problems=(*problems, *further),
        notes=(*notes, *more),
    )


def _form(tree: Tree, notes: list[str]) -> ModuleType:
    """The module that reads this folder."""
    found = [form for form in _FORMS if form.recognize(tree)]
    if found:
        if len(found) > 1:
            notes.append(f"read as {found[0].NAME}, though there is also {found[1].NAME}")
        return found[0]
    if not tree.images:
        raise UserError(f"{tree.typed}: no images inside; give a folder of images with masks ({_HOW})")
    boxes = [form.NAME for form in (coco, voc, yolo) if form.recognize(tree)]
    if boxes:
        raise UserError(
            f"{tree.typed}: {counted(len(tree.images), 'image')} with boxes ({boxes[0]}) but no masks; {_HOW}; "
            "boxes are for --task detect"
        )
    raise UserError(f"{tree.typed}: {counted(len(tree.images), 'image')} but no masks; {_HOW}")


def _usable(
    entries: Sequence[Masked], sizes: dict[Path, tuple[int, int]], turns: dict[Path, int], lost: Lost
) -> list[Masked]:
    """What can be learned from; what is left out is told to ``lost``."""
    kept = []
    for entry in entries:
        size = sizes.get(entry.image)
        if size is None:
            continue  # told already
        if entry.size != size and entry.image not in turns:
            (width, height), name = entry.size, shown(entry.image.name)
            why = f"{width}x{height} pixels, {name} has {size[0]}x{size[1]}"
            lost.add("mask size", entry.origin, name=name, why=why)
        elif not entry.pixels[:-1].any():
            lost.add("bare mask", entry.origin, name=shown(entry.image.name))
        else:
            kept.append(entry)
    return kept


def _set_aside(
    tree: Tree, source: str, entries: list[Masked], background: bool, seed: int, fraction: float
) -> tuple[list[Masked], list[Masked]]:
    if fraction == 1:
        return [], entries
    if len(entries) == 1:
        raise UserError(f"{source}: only one image has a usable mask; paint at least two, better fifty")
    bare = [background and not entry.pixels[1:-1].any() for entry in entries]
    held = held_back(tree, [entry.image for entry in entries], bare, seed, fraction)
    if not held.any():  # one image with objects and one without
        held[-1] = True
    return (
        [entry for entry, out in zip(entries, held, strict=True) if not out],
        [entry for entry, out in zip(entries, held, strict=True) if out],
    )


def _split(
    entries: Sequence[Masked], sizes: dict[Path, tuple[int, int]], turns: dict[Path, int], classes: int
) -> MaskSplit:
    return MaskSplit(
        images=tuple(entry.image for entry in entries),
        sizes=np.array([sizes[entry.image] for entry in entries], np.int64).reshape(-1, 2),
        masks=tuple(entry.mask(turns.get(entry.image, 1)) for entry in entries),
        pixels=np.array([entry.pixels for entry in entries], np.int64).reshape(-1, classes + 1),
    )


def _check_classes(source: str, classes: Sequence[str], train: MaskSplit, val: MaskSplit, notes: list[str]) -> None:
    """Refuses a data set with one class; notes classes that are nowhere to be found in a part."""
    seen = {part: split.pixels[:, :-1].sum(axis=0) > 0 for part, split in (("training", train), ("validation", val))}
    everywhere = seen["training"] | seen["validation"]
    if everywhere.sum() < 2 and len(train):  # what is only measured may well hold nothing
        only = classes[int(np.flatnonzero(everywhere)[0])]
        raise UserError(f"{source}: every pixel of its masks is '{only}' or ignored; there is nothing to learn")
    for part, split in (("training", train), ("validation", val)):
        absent = [f"'{name}'" for name, there in zip(classes, seen[part], strict=True) if not there]
        if absent and len(split):
            end = "it cannot be learned" if part == "training" else "nothing to measure it on"
            notes.append(f"no {part} pixel of {some(absent, 5)}: {end}")


def _fingerprint(tree: Tree, classes: Sequence[str], parts: dict[str, list[Masked]], found: dict[Path, Scanned]) -> str:
    digest = hashlib.sha256("\0".join(classes).encode())
    for part, entries in parts.items():
        digest.update(f"\n{part}\0{len(entries)}\n".encode())
        for entry in entries:
            name = shown(tree.relative(entry.image))
            digest.update(f"{name}\0{found[entry.image].digest}\0{entry.digest}\n".encode())
    return digest.hexdigest()
