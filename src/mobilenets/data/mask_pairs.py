"""Reads masks that are image files beside, or in a folder beside, the images that they belong to."""

import posixpath
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mobilenets.data import images, voc
from mobilenets.data.box_read import Lost, Tree, choose_parts, part_of
from mobilenets.data.mask_classes import find_list
from mobilenets.data.mask_file import FileMask, Looked, look
from mobilenets.data.mask_read import Masked, MaskReading
from mobilenets.data.mask_values import meaning, unknown_values
from mobilenets.data.masks import IGNORE
from mobilenets.data.names import counted, shown, some
from mobilenets.data.scan import threads
from mobilenets.data.types import Problem
from mobilenets.errors import UserError

NAME = "images and masks"

# A folder's name may begin with what is left of it: "train_masks" beside "train", "trainannot" beside it.
_MASKS = re.compile(
    r"(?:(.*?)[_\- ]?)?(masks?|labels?|annotations?|annots?|segmentationclass(?:png)?|segmentations?|gt|groundtruth)",
    re.IGNORECASE,
)
_IMAGES = re.compile(r"(?:(.*?)[_\- ]?)?(images?|imgs?|jpegimages|photos?|pictures)", re.IGNORECASE)
_NEITHER = frozenset({"segmentationobject", "segmentationclassvisualization", "visualization"})
_SUFFIX = re.compile(r"(.+?)[_\-. ](?:masks?|labels?|seg|segmentation|annotation|gt|L|P)", re.IGNORECASE)
_BESIDE = re.compile(r"(.+?)[_\-. ](?:masks?|labels?|seg|segmentation)", re.IGNORECASE)


def recognize(tree: Tree) -> bool:
    """Whether the folder holds a mask for at least one image."""
    pictures, masks = _sorted(tree)
    return any(_partner(keys, pictures) for keys in masks.values())


def read(tree: Tree, lost: Lost, progress: Callable[[int, int], None] | None = None) -> MaskReading:
    """Reads the parts that are used: by ``ImageSets/Segmentation/*.txt`` where there are such lists, else by folder.

    Every mask is decoded once, to count its values.

    Raises:
        UserError: the masks cannot be understood, or none is usable.
    """
    notes: list[str] = []
    pictures, masks = _sorted(tree)
    keys = {tree.images[key]: key for key in masks}
    parts = [
        (path, part or part_of(_words(keys[path])))
        for path, part in voc.parts_of(tree, list(keys), notes, "Segmentation", "a mask")
    ]
    learn, measure = choose_parts((part for _, part in parts if part != voc.UNLISTED), notes)
    if unlisted := [shown(path.name) for path, part in parts if part == voc.UNLISTED]:
        count = counted(len(unlisted), "mask")
        notes.append(f"not used, because in no list of ImageSets/Segmentation: {count} ({some(unlisted)})")
    pairs = [_pairs(tree, parts, wanted, masks, pictures, lost) for wanted in (learn, {measure})]
    notes.extend(_without(tree, masks, pictures))
    paths = list(dict.fromkeys(path for part in pairs for path in part.values()))
    looked, problems = _look(tree, paths, progress)
    if not looked:
        first = f" ({problems[0].path}: {problems[0].reason})" if problems else lost.example()
        raise UserError(f"{tree.typed}: no mask can be read{first}")
    laid_out = any(f"/{folder.lower()}".endswith("/segmentationclass") for folder in tree.folders)
    meant = meaning(looked, find_list(tree, notes), laid_out, str(tree.typed), notes)
    notes.extend(unknown_values(looked, meant))
    if clear := [shown(path.name) for path, one in looked.items() if one.transparent]:
        notes.append(f"transparent pixels are read as black: {counted(len(clear), 'mask')} ({some(clear)})")
    train, val = (
        [
            _masked(tree, image, path, looked[path], meant.class_of(looked[path]), len(meant.classes))
            for image, path in part.items()
            if path in looked
        ]
        for part in pairs
    )
    return MaskReading(meant.classes, train, val, problems, notes)


def _pairs(
    tree: Tree,
    parts: Sequence[tuple[Path, str]],
    wanted: set[str | None],
    masks: dict[str, list["_Place"]],
    pictures: dict["_Place", str],
    lost: Lost,
) -> dict[Path, Path]:
    """The mask of each image of some parts."""
    result: dict[Path, Path] = {}
    for path, part in parts:
        if part in wanted:
            picture = _partner(masks[tree.relative(path)], pictures)
            if picture is None:
                lost.add("alone", tree.called(path))
            elif tree.images[picture] in result:
                lost.add("twice", tree.called(path), why=shown(posixpath.basename(picture)))
            else:
                result[tree.images[picture]] = path
    return result


def _masked(tree: Tree, image: Path, path: Path, looked: Looked, classes: dict[int, int], count: int) -> Masked:
    pixels = np.zeros(count + 1, np.int64)
    for value, number in looked.values.items():
        place = classes.get(value, IGNORE)
        pixels[count if place == IGNORE else place] += number
    return Masked(
        image=image,
        origin=tree.called(path),
        size=looked.size,
        mask=lambda turn: FileMask(path, classes, turn),
        pixels=pixels,
        digest=f"{looked.digest} {sorted(classes.items())}",
    )


def _look(
    tree: Tree, paths: Sequence[Path], progress: Callable[[int, int], None] | None
) -> tuple[dict[Path, Looked], list[Problem]]:
    """What is in each mask, and those that cannot be read."""

    def safely(path: Path) -> Looked | str:
        try:
            return look(path)
        except images.ImageError as error:
            return str(error)

    found: dict[Path, Looked] = {}
    problems = []
    pool = ThreadPoolExecutor(threads())
    try:
        for done, (path, result) in enumerate(zip(paths, pool.map(safely, paths), strict=True), 1):
            if isinstance(result, str):
                problems.append(Problem(tree.called(path), result))
            else:
                found[path] = result
            if progress and (done % 16 == 0 or done == len(paths)):
                progress(done, len(paths))
    finally:
        pool.shutdown(cancel_futures=True)
    return found, problems


_Place = tuple[tuple[str, ...], str]  # folders and stem without the words that tell images from masks


def _sorted(tree: Tree) -> tuple[dict[_Place, str], dict[str, list[_Place]]]:
    """The images by their place, and the masks, each with the places where its image may be."""
    pictures: dict[_Place, str] = {}
    masks: dict[str, list[_Place]] = {}
    rest: dict[str, tuple[_Place, bool]] = {}  # what is not in a folder of masks, and whether in one of images
    for key in tree.images:
        folder, name = posixpath.split(key)
        stem = posixpath.splitext(name)[0]
        steps = folder.split("/") if folder else []
        if any(step.lower() in _NEITHER for step in steps):
            continue
        found = [(_MASKS.fullmatch(step), _IMAGES.fullmatch(step), step) for step in steps]
        left = ((word[1] or "") if (word := mask or image) else step for mask, image, step in found)
        place = tuple(filter(None, left))
        if any(mask for mask, *_ in found):
            suffix = _SUFFIX.fullmatch(stem)
            masks[key] = [(place, stem), *([(place, suffix[1])] if suffix else [])]
        else:
            rest[key] = (place, stem), any(image for _, image, _ in found)
    places, folders = {place for place, _ in rest.values()}, bool(masks)
    for key, ((place, stem), among_images) in rest.items():
        beside = _BESIDE.fullmatch(stem)
        # Where masks have folders of their own, what lies among images is one.
        if beside and (place, beside[1]) in places and not (among_images and folders):
            masks[key] = [(place, beside[1])]
        else:
            pictures.setdefault((place, stem), key)
    return pictures, masks


def _partner(places: Sequence[_Place], pictures: dict[_Place, str]) -> str | None:
    return next((pictures[place] for place in places if place in pictures), None)


def _words(key: str) -> list[str]:
    """The folders of a file, also without the words that tell images from masks: "train" of "train_masks"."""
    steps = posixpath.dirname(key).split("/")
    return [found[1] or "" if (found := _MASKS.fullmatch(step)) else step for step in steps]


def _without(tree: Tree, masks: dict[str, list[_Place]], pictures: dict[_Place, str]) -> list[str]:
    """A note on images without a mask."""
    known = {*masks, *(_partner(places, pictures) for places in masks.values())}
    left = [
        shown(posixpath.basename(key))
        for key in tree.images
        if key not in known and not _NEITHER & {step.lower() for step in key.split("/")}
    ]
    return [f"{counted(len(left), 'image')} without a mask left out ({some(left)})"] if left else []
