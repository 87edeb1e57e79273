"""``stamps``: photographic cut-outs of Tux Paint, each laid on a background of its own."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from mobilenets.data.names import for_validation
from mobilenets.data.types import ImageData, Split
from mobilenets.errors import UserError

# Where Debian's package tuxpaint-stamps-default puts them; they are GPL-2, so they are read there and not copied.
_DEBIAN = Path("/usr/share/tuxpaint/stamps")
CLASSES = {
    "bird": "animals/birds",
    "fish": "animals/fish",
    "flower": "plants/flowers",
    "fruit": "food/fruit",
    "mammal": "animals/mammals",
    "roadsign": "town/roadsigns",
    "vegetable": "food/vegetables",
}
# Drawn ones, and pictures that stand there a second time.
_LEFT_OUT = ("_mirror", "_flip", "cartoon", "toys")
SIZE = 128  # pixels
COUNTS = {"train": 2100, "val": 700}  # scenes, as many of each class
_GENERATOR = "stamps scenes 1"  # part of the fingerprint; counted up when the scenes change


@dataclass(frozen=True, eq=False)
class Cutout:
    """One object.

    Attributes:
        name: of its file, below its class.
        pixels: uint8 ``(H, W, 4)``: RGB and opacity, no transparent margin.
    """

    name: str
    pixels: np.ndarray


def stamps() -> ImageData:
    """Scenes of 128x128 pixels with one object of 7 classes, always the same ones.

    The evaluation scenes show cut-outs (a quarter of each class) that no training scene shows.

    Raises:
        UserError: the cut-outs are not installed.
    """
    splits = {}
    for part, count in COUNTS.items():
        objects = [held_out(name, part == "val") for name in CLASSES]
        labels = np.arange(count, dtype=np.int64) % len(CLASSES)
        scenes = np.empty((count, SIZE, SIZE, 3), np.uint8)
        for index, label in enumerate(labels):
            # Numbers of its own for every scene, so that their order and number can change without the pictures.
            rng = np.random.default_rng([part == "val", index])
            scenes[index] = _scene(objects[label][rng.integers(len(objects[label]))], rng)
        splits[part] = Split(scenes, labels)
    digest = hashlib.sha256(_GENERATOR.encode())
    for name in CLASSES:
        for cutout in cutouts(name):
            digest.update(cutout.name.encode() + cutout.pixels.tobytes())
    return ImageData(
        name="stamps",
        source="stamps",
        classes=tuple(CLASSES),
        train=splits["train"],
        val=splits["val"],
        native_size=SIZE,
        flip=True,
        fingerprint=digest.hexdigest(),
    )


@cache
def cutouts(name: str) -> tuple[Cutout, ...]:
    """The cut-outs of a class, in the order of their names.

    Raises:
        UserError: they are not installed.
    """
    folder = _DEBIAN / CLASSES[name]
    paths = sorted(
        path
        for path in folder.rglob("*.png")
        if not any(word in path.relative_to(_DEBIAN).as_posix() for word in _LEFT_OUT)
    )
    if not paths:
        raise UserError("stamps: not installed here; install the Debian package tuxpaint-stamps-default")
    return tuple(Cutout(path.relative_to(folder).as_posix(), _read(path)) for path in paths)


def held_out(name: str, val: bool) -> list[Cutout]:
    """The cut-outs of a class that are kept for evaluation, or the others."""
    found = cutouts(name)
    chosen = for_validation([f"{name}/{cutout.name}" for cutout in found], 0, 0.25)
    return [cutout for index, cutout in enumerate(found) if (index in chosen) == val]


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGBA"))
    rows, columns = (np.flatnonzero((pixels[..., 3] > 16).any(axis=axis)) for axis in (1, 0))
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _scene(cutout: Cutout, rng: np.random.Generator) -> np.ndarray:
    """One object somewhere on a background: uint8 ``(SIZE, SIZE, 3)``."""
    import cv2

    scene = background(SIZE, rng)
    pixels = cutout.pixels.astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255  # opaque parts alone may bleed into their neighbours
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    height, width = pixels.shape[:2]
    angle, scale = rng.uniform(-20, 20), SIZE * rng.uniform(0.45, 0.85) / max(height, width)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    corners = turn @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    extent = corners.max(axis=1) - corners.min(axis=1)
    room = np.maximum(SIZE - extent, 0)
    turn[:, 2] += rng.uniform(0, 1, 2) * room - corners.min(axis=1) + np.minimum(SIZE - extent, 0) / 2
    if scale < 0.5:  # warping takes four pixels for each; averaging first keeps fine detail from flickering
        pixels = cv2.blur(pixels, [round(0.8 / scale)] * 2)
    layer = cv2.warpAffine(np.ascontiguousarray(pixels), turn, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    light = rng.uniform(0.75, 1.2)
    opacity = layer[..., 3:] / 255
    return np.clip(layer[..., :3] * light + scene * (1 - opacity), 0, 255).astype(np.uint8)


def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A background without objects: gradient, blotches and grain; float32 ``(size, size, 3)``, 0..255."""
    import cv2

    ends = rng.uniform(20, 235, (2, 2, 3)).astype(np.float32)
    picture = cv2.resize(ends, (size, size), interpolation=cv2.INTER_LINEAR)
    for _ in range(rng.integers(1, 4)):
        cells = int(2 ** rng.uniform(1, 5))
        way = cv2.INTER_NEAREST if rng.random() < 0.2 else cv2.INTER_CUBIC
        blotches = rng.normal(0, 1, (cells, cells, 3 if rng.random() < 0.5 else 1)).astype(np.float32)
        blotches = cv2.resize(blotches, (size, size), interpolation=way).reshape(size, size, -1)
        picture = picture + blotches * rng.uniform(8, 45)
    picture = picture + rng.normal(0, rng.uniform(0, 12), (size, size, 1))
    return np.clip(picture, 0, 255).astype(np.float32)
