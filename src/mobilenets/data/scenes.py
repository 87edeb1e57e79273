"""``stamps`` with boxes or masks: scenes of several photographic cut-outs of Tux Paint."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from mobilenets.data.boxes import BoxData, BoxSplit
from mobilenets.data.masks import MaskData, MaskSplit, pixels_of
from mobilenets.data.stamps import CLASSES, Cutout, background, cutouts, held_out

SIZE = 320  # pixels
COUNTS = {"train": 1200, "val": 300, "unseen": 300}  # scenes
MOST = 6  # objects in a scene
_EMPTY = 0.03  # share of the scenes without objects
_SCALES = (0.12, 0.7)  # longer side of an object, as a share of the scene's
_ENLARGED = 2.5  # at most; the smallest cut-outs are 49 pixels long, and would tell their class by their blur
_SHORTEST = 10  # pixels that the visible part of an object is wide and high, at least
_INSIDE = 0.75  # share of an object that the scene's border leaves, at least
_VISIBLE = 0.5  # share that the border and the objects in front leave, at least
_TRIES = 12
_GENERATOR = "stamps boxes 1"  # part of the fingerprint; counted up when the scenes change


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and the objects in it, from the hindmost to the foremost.

    Attributes:
        image: uint8 ``(S, S, 3)``, 0..255.
        boxes: float32 ``(n, 4)``: left, top, right, bottom in pixels, tight around what is visible of each object.
        labels: int64 ``(n,)``.
        masks: uint8 ``(S, S)``: which object, 1 to n, is visible at each pixel; 0 is background.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def scenes() -> BoxData:
    """Scenes of 320x320 pixels with up to six objects of 7 classes, always the same ones.

    Training and evaluation scenes show the same cut-outs, differently turned, sized, lit and arranged: ``val``
    measures whether objects are found in new scenes, not whether an object never seen before is recognized as one of
    its kind. `unseen` measures that.

    Raises:
        UserError: the cut-outs are not installed.
    """
    fingerprint = _fingerprint(_GENERATOR)
    return BoxData(
        name="stamps",
        source="stamps",
        form="built-in",
        classes=tuple(CLASSES),
        train=_split("train"),
        val=_split("val"),
        native_size=SIZE,
        flip=True,
        fingerprint=fingerprint,
    )


def unseen() -> BoxSplit:
    """More scenes, of the quarter of the cut-outs that no scene of `scenes` shows.

    Raises:
        UserError: the cut-outs are not installed.
    """
    return _split("unseen")


def scene_masks() -> MaskData:
    """The scenes of `scenes` with the class of each pixel: 0 is background, 1 to 7 are the classes of `scenes`.

    Raises:
        UserError: the cut-outs are not installed.
    """
    fingerprint = _fingerprint(f"{_GENERATOR} masks")
    return MaskData(
        name="stamps",
        source="stamps",
        form="built-in",
        classes=("background", *CLASSES),
        train=_mask_split("train"),
        val=_mask_split("val"),
        native_size=SIZE,
        flip=True,
        fingerprint=fingerprint,
    )


def unseen_masks() -> MaskSplit:
    """The scenes of `unseen` with their masks.

    Raises:
        UserError: the cut-outs are not installed.
    """
    return _mask_split("unseen")


def drawn(part: str, index: int) -> Scene:
    """One of the scenes that `scenes` and `unseen` are made of, with its masks.

    Args:
        part: "train", "val" or "unseen".
        index: which one, counted from 0.

    Raises:
        UserError: the cut-outs are not installed.
    """
    return _drawn(part, index, _objects(part))


def scene(objects: list[tuple[int, Cutout]], rng: np.random.Generator, size: int = SIZE) -> Scene:
    """Lays objects on a background, each in front of those that came earlier.

    They may overlap and be cut by the border, but at least half of each stays visible. One for which no such place
    is found within a few tries is left out.

    Args:
        objects: label and cut-out of each.
        rng: decides sizes, turns, places, light and background.
        size: height and width of the scene, pixels.
    """
    picture = background(size, rng)
    masks = np.zeros((size, size), np.uint8)
    boxes = np.zeros((0, 4), np.float32)
    labels: list[int] = []
    whole = visible = np.zeros(0, np.int64)  # pixels of each
    for label, cutout in objects:
        for _ in range(_TRIES):
            layer = _posed(cutout, size, rng)
            here, there = _place(layer.shape[:2], size, rng)
            silhouette = layer[..., 3] >= 128
            shown, all_of_it = silhouette[here], np.append(whole, silhouette.sum())
            hidden = np.bincount(masks[there][shown], minlength=len(labels) + 1)[1:]
            left = np.append(visible - hidden, shown.sum())
            if left[-1] < max(1, _INSIDE * all_of_it[-1]) or (left < _VISIBLE * all_of_it).any():
                continue
            tried = masks.copy()
            tried[there][shown] = len(labels) + 1
            found = _boxes(tried, len(left))
            if (found[:, 2:] - found[:, :2]).min() < _SHORTEST:
                continue
            masks, boxes, whole, visible = tried, found, all_of_it, left
            labels.append(label)
            light, part = rng.uniform(0.75, 1.2), layer[here].astype(np.float32)
            picture[there] = np.clip(part[..., :3] * light + picture[there] * (1 - part[..., 3:] / 255), 0, 255)
            break
    return Scene(picture.astype(np.uint8), boxes, np.array(labels, np.int64), masks)


def _fingerprint(generator: str) -> str:
    digest = hashlib.sha256(generator.encode())
    for name in CLASSES:
        for cutout in cutouts(name):
            digest.update(cutout.name.encode() + cutout.pixels.tobytes())
    return digest.hexdigest()


def _split(part: str) -> BoxSplit:
    images, sizes = _room(part)
    boxes, labels = [], []
    for image, one in zip(images, _all(part), strict=True):
        image[:] = one.image
        boxes.append(one.boxes)
        labels.append(one.labels)
    ignored = tuple(np.zeros(len(each), bool) for each in labels)
    return BoxSplit(images, sizes, tuple(boxes), tuple(labels), ignored)


def _mask_split(part: str) -> MaskSplit:
    images, sizes = _room(part)
    masks = np.empty(images.shape[:3], np.uint8)
    for image, mask, one in zip(images, masks, _all(part), strict=True):
        image[:] = one.image
        # Of numbers of objects to classes; the background, of number 0, is class 0.
        mask[:] = np.append(0, one.labels + 1)[one.masks]
    return MaskSplit(images, sizes, masks, np.stack([pixels_of(mask, len(CLASSES) + 1) for mask in masks]))


def _room(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Memory for the images of a part, and their sizes."""
    return np.empty((COUNTS[part], SIZE, SIZE, 3), np.uint8), np.full((COUNTS[part], 2), SIZE, np.int64)


def _all(part: str) -> Iterator[Scene]:
    objects = _objects(part)
    for index in range(COUNTS[part]):
        yield _drawn(part, index, objects)


def _objects(part: str) -> list[list[Cutout]]:
    return [held_out(name, part == "unseen") for name in CLASSES]


def _drawn(part: str, index: int, objects: list[list[Cutout]]) -> Scene:
    # Numbers of its own for every scene, so that their order and number can change without the pictures.
    rng = np.random.default_rng([list(COUNTS).index(part), index])
    count = 0 if rng.random() < _EMPTY else rng.integers(1, MOST + 1)
    labels = rng.integers(len(CLASSES), size=count).tolist()
    return scene([(label, objects[label][rng.integers(len(objects[label]))]) for label in labels], rng)


def _posed(cutout: Cutout, size: int, rng: np.random.Generator) -> np.ndarray:
    """A cut-out sized, turned and perhaps mirrored: uint8 ``(H, W, 4)``, colours multiplied by opacity."""
    import cv2

    pixels = _faded(cutout)
    if rng.random() < 0.5:
        pixels = cv2.flip(pixels, 1)
    height, width = pixels.shape[:2]
    longer = max(height, width)
    least, most = (size * share for share in _SCALES)
    side = np.exp(rng.uniform(np.log(least), np.log(max(least, min(most, longer * _ENLARGED)))))
    angle, scale = rng.uniform(-20, 20), side / longer
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    corners = turn @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    extent = np.ceil(corners.max(axis=1) - corners.min(axis=1)).astype(int) + 2  # a soft edge all around
    turn[:, 2] += 1 - corners.min(axis=1)
    if scale < 0.5:  # warping takes four pixels for each; averaging first keeps fine detail from flickering
        pixels = cv2.blur(pixels, [round(0.8 / scale)] * 2)
    way = cv2.INTER_LINEAR if scale < 1 else cv2.INTER_CUBIC
    return cv2.warpAffine(pixels, turn, extent.tolist(), flags=way)


@cache
def _faded(cutout: Cutout) -> np.ndarray:
    """Its pixels with colours multiplied by opacity: opaque parts alone may bleed into their neighbours."""
    opacity = cutout.pixels[..., 3:].astype(np.uint16)
    return np.concatenate([(cutout.pixels[..., :3] * opacity + 127) // 255, opacity], axis=-1).astype(np.uint8)


def _place(shape: tuple[int, int], size: int, rng: np.random.Generator) -> tuple[tuple, tuple]:
    """Where something of ``shape`` may lie: which part of it (rows, columns) comes where in the scene."""
    here, there = [], []
    for side in shape:
        over = (1 - _INSIDE) * side
        at = round(rng.uniform(-over, size - side + over))
        here.append(slice(max(0, -at), min(side, size - at)))
        there.append(slice(max(0, at), min(size, at + side)))
    return tuple(here), tuple(there)


def _boxes(masks: np.ndarray, count: int) -> np.ndarray:
    """Tight boxes around the pixels 1 to ``count``, each of which occurs: float32 ``(count, 4)``."""
    boxes = np.empty((count, 4), np.float32)
    for number in range(count):
        mask = masks == number + 1
        for axis in (0, 1):
            at = np.flatnonzero(mask.any(axis=axis))
            boxes[number, axis::2] = at[0], at[-1] + 1
    return boxes
