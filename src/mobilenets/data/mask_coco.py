"""Reads masks written as COCO does: outlines or run lengths of every object, in one JSON file for a part's images."""

import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.architectures import MOST_CLASSES
from mobilenets.data import coco, images
from mobilenets.data.box_read import Lost, Tree
from mobilenets.data.mask_read import Masked, MaskReading
from mobilenets.data.masks import BACKGROUND, IGNORE, pixels_of
from mobilenets.data.names import shown
from mobilenets.data.outlines import filled, unpacked
from mobilenets.data.scan import threads
from mobilenets.data.types import Problem
from mobilenets.data.upright import turned
from mobilenets.errors import UserError

NAME = coco.NAME


_KEPT = 2**26  # bytes of objects that are drawn before it is known which are in front; others are drawn again
_BLOCK = 2**24  # bytes that are looked through at once
_LONGEST = 64  # bytes that the beginning of an outline takes
_OUTLINE = re.compile(rb'"segmentation"\s*:\s*(?:\[\s*\[\s*[\d\-]|\{)')


def recognize(tree: Tree) -> bool:
    """Whether the folder holds such files, with outlines."""
    return any(_outlined(path) for path in coco.files_of(tree))


def _outlined(path: Path) -> bool:
    """Whether an outline occurs in a file, which may be large: it is not parsed for that."""
    tail = b""
    if not path.is_file():  # a pipe has no end
        return False
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                if _OUTLINE.search(tail + block):
                    return True
                tail = block[-_LONGEST:]
    except OSError:
        return False
    return False


def read(tree: Tree, lost: Lost, progress: Callable[[int, int], None] | None = None) -> MaskReading:
    """Reads the parts that are used; every object is drawn once, to see that it can be.

    Raises:
        UserError: a file is damaged, or has no list of images, annotations or categories.
    """
    found = coco.contents(tree, outlines=True)
    names = sorted(found.classes, key=lambda name: name.casefold() not in BACKGROUND)
    classes = tuple(names) if names and names[0].casefold() in BACKGROUND else ("background", *names)
    if len(classes) > MOST_CLASSES:
        raise UserError(f"{tree.typed}: {len(classes)} classes with background; masks have at most {MOST_CLASSES}")
    places = {name: index for index, name in enumerate(classes)}
    train: dict[Path, _Drawing] = {}
    val: dict[Path, _Drawing] = {}
    for path, content in found.files.items():
        _drawings(tree, path, content, places, lost, val if path in found.measured else train)
    notes = [*found.notes, *coco.unlisted(tree, {*train, *val})]
    both = [*train.values(), *val.values()]
    results: list[Masked | Problem] = []
    pool = ThreadPoolExecutor(threads())
    try:
        checked = pool.map(lambda drawing: _checked(tree, drawing, len(classes)), both)
        for done, (result, undrawn) in enumerate(checked, 1):
            results.append(result)
            for place, why in undrawn:
                origin = both[done - 1].origin
                lost.add("outline", origin, place, name=shown(both[done - 1].image.name), why=why)
            if progress and (done % 16 == 0 or done == len(both)):
                progress(done, len(both))
    finally:
        pool.shutdown(cancel_futures=True)
    problems = [one for one in results if isinstance(one, Problem)]
    parts = (
        [one for one in part if isinstance(one, Masked)] for part in (results[: len(train)], results[len(train) :])
    )
    return MaskReading(classes, *parts, problems, notes)


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of an image, from its row ``top`` and column ``left`` on, and which pixels of it are inside."""

    top: int
    left: int
    inside: np.ndarray

    def of(self, pixels: np.ndarray, top: int = 0, left: int = 0) -> np.ndarray:
        """That part of an image's pixels, of which those before ``top`` and ``left`` are not given."""
        height, width = self.inside.shape
        return pixels[self.top - top : self.top - top + height, self.left - left : self.left - left + width]


@dataclass(frozen=True, eq=False)
class Shape:
    """One object.

    Attributes:
        label: Its class; ``IGNORE`` of a crowd, and of what is of no class.
        outlines: float32 ``(2 n,)`` each, x and y of the corners in turn.
        lengths: Run lengths instead of outlines, ``counts`` and ``size`` as COCO writes them.
    """

    label: int
    outlines: tuple[np.ndarray, ...] = ()
    lengths: Mapping[str, Any] | None = None

    def drawn(self, width: int, height: int) -> _Part:
        """Its pixels.

        Raises:
            ValueError: it cannot be drawn.
        """
        if self.lengths is not None:
            if self.lengths.get("size") != [height, width]:
                raise ValueError("run lengths of another size than the image's")
            counts = self.lengths.get("counts")
            if not isinstance(counts, str | list):
                raise ValueError("run lengths without counts")
            inside = unpacked(counts, width, height)
            rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
            if not len(rows):
                return _Part(0, 0, np.zeros((0, 0), bool))
            part = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            return _Part(int(rows[0]), int(columns[0]), part.copy())
        if not self.outlines:
            raise ValueError("none is given")
        parts = [_Part(*filled(outline, width, height)) for outline in self.outlines]
        if len(parts) == 1:
            return parts[0]
        parts = [part for part in parts if part.inside.size] or parts[:1]
        top, left = (min(starts) for starts in zip(*((part.top, part.left) for part in parts), strict=True))
        ends = [(part.top + part.inside.shape[0], part.left + part.inside.shape[1]) for part in parts]
        bottom, right = (max(each) for each in zip(*ends, strict=True))
        whole = _Part(top, left, np.zeros((bottom - top, right - left), bool))
        for part in parts:
            part.of(whole.inside, top, left)[part.inside] = True
        return whole


@dataclass(frozen=True, eq=False)
class ShapesMask:
    """A mask drawn from shapes when it is asked for.

    Smaller objects are in front of larger ones: COCO's annotations have no order in depth, and a cup that overlaps a
    table stands on it more often than it is hidden by it. What is ignored lies behind all objects.

    Attributes:
        shapes: The objects.
        size: Width and height of the picture they were drawn on.
        turn: EXIF's orientation of the image, where they were drawn before the image was turned by it; else 1.
    """

    shapes: tuple[Shape, ...]
    size: tuple[int, int]
    turn: int = 1

    def read(self) -> np.ndarray:
        """The class of each pixel: uint8 ``(height, width)``, as the image is shown."""
        width, height = self.size
        areas, parts, kept = [], [], 0
        for shape in self.shapes:
            part = shape.drawn(width, height)
            areas.append(int(part.inside.sum()))
            kept += part.inside.size
            parts.append(part if kept <= _KEPT else None)
        # The sort is stable: of two objects of one size the later is in front.
        order = sorted(range(len(areas)), key=lambda index: (self.shapes[index].label != IGNORE, -areas[index]))
        mask = np.zeros((height, width), np.uint8)
        for index in order:
            part = parts[index] or self.shapes[index].drawn(width, height)
            part.of(mask)[part.inside] = self.shapes[index].label
        return np.ascontiguousarray(turned(mask, self.turn))


@dataclass(eq=False)
class _Drawing:
    """An image and, for each object on it, its place in the file, its shape, and its box."""

    image: Path
    origin: str
    size: tuple[int, int] | None
    shapes: list[tuple[str, Shape, Shape]] = field(default_factory=list)


def _drawings(
    tree: Tree, path: Path, content: dict, places: Mapping[str, int], lost: Lost, result: dict[Path, _Drawing]
) -> None:
    """Adds the images of one file that are there, with their objects."""
    origin = tree.called(path)
    names = coco.categories_of(content)[1]
    found = coco.images_of(tree, path, content, lost)
    for image, entry in found.values():
        if image is not None and image not in result:  # one that is listed twice has the objects of both
            result[image] = _Drawing(image, origin, coco.size_of(entry))
    for index, entry in enumerate(content["annotations"]):
        number, place = coco.key_of(entry.get("image_id")), shown(coco.place_of(index, entry))
        if number not in found:
            lost.add("no image", origin, place)
            continue
        image, listed = found[number]
        if image is None:
            continue  # told already
        category = names.get(coco.key_of(entry.get("category_id")))
        label = places.get(category, IGNORE)
        name = shown(listed["file_name"])
        if category not in places:
            # What it shows is an object all the same, and not background.
            lost.add("class" if category is None else "new class", origin, place, name=name, why=category or "")
        if entry.get("iscrowd") in (1, True):
            label = IGNORE
        result[image].shapes.append((place, _shape(label, entry), _box(entry)))


def _shape(label: int, entry: dict) -> Shape:
    """An annotation's shape, as it is written."""
    given = entry.get("segmentation")
    if isinstance(given, dict):
        return Shape(label, lengths=given)
    try:
        return Shape(label, tuple(np.array(outline, np.float32) for outline in given or ()))
    except (TypeError, ValueError, OverflowError):
        return Shape(label)


def _box(entry: dict) -> Shape:
    """The box of an object, which is all that is known of one that cannot be drawn: it is ignored."""
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) for side in box):
        return Shape(IGNORE)
    try:
        left, top, width, height = np.array(box, np.float32)
    except OverflowError:
        return Shape(IGNORE)
    right, bottom = left + width, top + height
    return Shape(IGNORE, (np.array([left, top, right, top, right, bottom, left, bottom]),))


def _checked(tree: Tree, drawing: _Drawing, classes: int) -> tuple[Masked | Problem, list[tuple[str, str]]]:
    """An image's mask of the shapes that can be drawn, or what is wrong; and for other shapes their place and why."""
    try:
        size = drawing.size or images.dimensions(drawing.image)
    except images.ImageError as error:
        return Problem(tree.called(drawing.image), str(error)), []
    if size[0] * size[1] > images.MAX_PIXELS:
        return Problem(tree.called(drawing.image), f"too large: {size[0]}x{size[1]} pixels, says {drawing.origin}"), []
    shapes: list[Shape] = []
    undrawn = []
    for place, shape, box in drawing.shapes:
        try:
            shape.drawn(*size)
            shapes.append(shape)
        except ValueError as error:
            undrawn.append((place, str(error)))
            with contextlib.suppress(ValueError):
                box.drawn(*size)
                shapes.append(box)
    mask = ShapesMask(tuple(shapes), size)
    pixels = mask.read()
    masked = Masked(
        image=drawing.image,
        origin=drawing.origin,
        size=size,
        mask=lambda turn: replace(mask, turn=turn),
        pixels=pixels_of(pixels, classes),
        digest=hashlib.sha256(pixels).hexdigest(),
    )
    return masked, undrawn
