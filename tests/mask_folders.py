"""Folders of images with masks that tests write, and what they ask of those."""

import os
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import folders
from mobilenets.data.mask_folder import load_masks
from mobilenets.data.masks import IGNORE, MaskData

WIDTH, HEIGHT = 40, 30
VOC_PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128] + [7] * (250 * 3) + [224, 224, 192]
refused = partial(folders.refused, load_masks)


def put(path: Path, width: int = WIDTH, height: int = HEIGHT, **more: object) -> Path:
    """Writes an image that no other path has."""
    pixels = np.random.default_rng(zlib.crc32(os.fsencode(path.name))).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **more)
    return path


def paint(path: Path, pixels: np.ndarray, mode: str | None = None, palette: list[int] | None = None) -> Path:
    """Writes a mask as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels, mode) if mode else Image.fromarray(pixels)
    if palette:
        picture.putpalette(palette)
    picture.save(path)
    return path


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def blocks(*values: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A mask of upright stripes, the first wider than the others, so that no mirror image is the same."""
    mask = np.full((height, width), values[0], np.int64)
    for place, value in enumerate(values[1:], 1):
        mask[place:, width * (place + 1) // (len(values) + 1) : width * (place + 2) // (len(values) + 1)] = value
    return mask


def pairs(root: Path, count: int = 3, *, mask: np.ndarray | None = None) -> Path:
    """Some images with masks in the most usual layout."""
    for index in range(count):
        put(root / "images" / f"{index}.jpg")
        paint(root / "masks" / f"{index}.png", (blocks(0, 1, 2) if mask is None else mask).astype(np.uint8))
    return root


def found(data: MaskData) -> dict[str, np.ndarray]:
    """File name -> mask of every image, in both parts; the counts and sizes of the split are checked."""
    result = {}
    for split in (data.train, data.val):
        assert split.sizes.dtype == split.pixels.dtype == np.int64
        for index, path in enumerate(split.images):
            mask = split.mask(index)
            assert mask.dtype == np.uint8
            assert mask.shape == tuple(split.sizes[index][::-1])
            counts = np.bincount(mask.ravel(), minlength=256)
            assert split.pixels[index].tolist() == [*counts[: len(data.classes)], counts[IGNORE]]
            result[path.name] = mask
    return result


def voc(root: Path, parts: dict[str, str], more: str = "") -> Path:
    for name in " ".join((*parts.values(), more)).split():
        put(root / "JPEGImages" / f"{name}.jpg")
        paint(root / "SegmentationClass" / f"{name}.png", blocks(0, 1, 3, 255).astype(np.uint8), "P", VOC_PALETTE)
        paint(root / "SegmentationObject" / f"{name}.png", blocks(0, 1, 2, 255).astype(np.uint8), "P", VOC_PALETTE)
    for part, names in parts.items():
        write(root / "ImageSets" / "Segmentation" / f"{part}.txt", "\n".join(names.split()))
    return root
