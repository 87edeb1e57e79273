"""``mobilenets predict`` with a segmenter: from image files to the class of each pixel, and pictures of that."""

import math
from collections.abc import Iterator
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.data.images import ImageError, decode, dimensions
from mobilenets.data.mask_drawing import draw_mask, mask_colour
from mobilenets.data.masks import has_background
from mobilenets.data.store import stretched
from mobilenets.deployment.artifacts import Artifact, check_maps
from mobilenets.deployment.pictures import fitting, require_other_folder, require_own, save, write
from mobilenets.deployment.predict import Run, loaded, model_and_images, results
from mobilenets.errors import UserError
from mobilenets.evaluation.segmenter import class_map

OVERLAP = 0.25  # share of a tile that the next one shows, too, at least


def segment_images(
    model: Path | str,
    paths: list[Path | str],
    out: Path | str | None = None,
    runtime: str = "auto",
    precision: str | None = None,
    cut_out: bool = False,
    tiles: bool = False,
) -> dict[str, Any]:
    """Tells of each pixel of images what it shows.

    Args:
        model: a model directory of a segmenter, or one of its exported files.
        paths: image files, and directories that are searched for images.
        out: directory for PNG files: the image with each class tinted, and the map of classes, in a palette; None
            writes none, but for those that ``cut_out`` asks for, which then go into the working directory. Pictures of
            another call are written over, and nothing else.
        runtime: of `RUNTIMES`, or ``auto``: the exported file that is the fastest here, Keras where there is none.
        precision: take exported files of this precision alone.
        cut_out: write a PNG of each image whose background is transparent, as much as the network takes it for that.
        tiles: look at images larger than the network's in tiles of its size, which overlap, instead of as a whole.

    Returns:
        ``runtime`` and ``file``; ``images``, each with ``file``, ``width``, ``height``, ``picture``, ``mask`` and
        ``cut_out`` (paths or None), and ``classes`` (``class``, ``pixels``, ``share`` 0..1 of the image), the largest
        first; and ``skipped``, each with ``file`` and ``reason``.

    Raises:
        UserError: the model or a path is missing, none of the images can be read, there is no background to cut out
            of, ``out`` is no directory, or one that images are read from, or what is not from here stands where a
            picture will be; also if what the file gives is no map of classes.
    """
    chosen, files = model_and_images(model, paths, runtime, precision)
    if cut_out and not has_background(tuple(chosen.classes)):
        raise UserError(f"--cut-out: {model} knows no background; its first class must be called so")
    require_other_folder(out, files)
    ends = (["", "_mask"] if out else []) + (["_cut_out"] if cut_out else [])
    place, images, skipped = Path(out or "."), [], []
    names = _names(files, place, ends)
    require_own(place / f"{name}{end}.png" for name in names for end in ends)
    with loaded(chosen, len(files)) as (runs, size, batch):
        runs = [_checked(run, chosen) for run in runs]

        def read(path: Path) -> np.ndarray:
            return stretched(decode(path, 2 * size), size, size)

        held = 4 * size**2 * len(chosen.classes)
        outputs = _tiled(files, runs, size, batch) if tiles else results(files, read, runs, batch, held)
        for path, name, output in zip(files, names, outputs, strict=True):
            try:
                if isinstance(output, str):
                    raise ImageError(output)
                if tiles:
                    output, pixels = output
                else:
                    pixels = decode(path) if out or cut_out else None
                width, height = dimensions(path) if pixels is None else pixels.shape[1::-1]
            except ImageError as error:
                skipped.append({"file": str(path), "reason": str(error)})
                continue
            found = output if tiles else class_map(output, width, height)
            entry = {"file": str(path), "width": width, "height": height}
            entry |= dict.fromkeys(("picture", "mask", "cut_out"))
            if out:
                entry["picture"] = write(draw_mask(pixels, found, chosen.classes), place / f"{name}.png")
                entry["mask"] = _write_map(found, chosen.classes, place / f"{name}_mask.png")
            if cut_out:
                seen = np.where(found == 0, 0, 255).astype(np.uint8) if tiles else opacity(output, width, height)
                entry["cut_out"] = write(np.dstack([pixels, seen]), place / f"{name}_cut_out.png")
            images.append(entry | {"classes": _areas(found, chosen.classes)})
    if not images:
        first = skipped[0]
        raise UserError(f"no image could be read; the first, {first['file']}: {first['reason']}")
    return {"runtime": chosen.runtime, "file": str(chosen.path), "images": images, "skipped": skipped}


def _names(files: list[Path], place: Path, ends: list[str]) -> list[str]:
    """A name for what is written of each file: its own, with a number where that would be written over something.

    With one of the ``ends`` behind it, nothing that is written has the name of what is written of another file, or is
    one of the files, or what one of them is a link to. What would be too long for a file system is cut.
    """
    whole = place.resolve()
    read = {path.parent.resolve() / path.name for path in files} | {path.resolve() for path in files}
    taken = {path.name.casefold() for path in read if path.parent == whole}
    longest = max(ends, key=len, default="")
    names = []
    for path in files:
        numbers = chain([""], (f"_{number}" for number in count(1)))
        tries = (f"{fitting(path.stem, f'{number}{longest}.png')}{number}" for number in numbers)
        name = next(name for name in tries if taken.isdisjoint(f"{name}{end}.png".casefold() for end in ends))
        taken.update(f"{name}{end}.png".casefold() for end in ends)
        names.append(name)
    return names


def _checked(run: Run, chosen: Artifact) -> Run:
    """The same network; what it gives for an image, or for a tile of one, is known to be a map of the classes."""

    def checked(images: np.ndarray) -> np.ndarray:
        outputs = run(images)
        check_maps(chosen.path, outputs, len(chosen.classes))
        return outputs

    return checked


def _areas(found: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
    counts = np.bincount(found.ravel(), minlength=len(classes))
    return [
        {"class": classes[index], "pixels": int(counts[index]), "share": float(counts[index] / found.size)}
        for index in np.argsort(-counts, kind="stable")
        if counts[index]
    ]


def opacity(output: np.ndarray, width: int, height: int) -> np.ndarray:
    """How far each pixel is no background: uint8 (height, width), 0..255.

    ``output`` holds probabilities (h, w, classes), or classes (h, w).
    """
    import cv2

    seen = np.float32(output > 0) if output.ndim == 2 else 1 - np.ascontiguousarray(output[..., 0], np.float32)
    seen = cv2.resize(seen, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(np.rint(seen * 255), 0, 255).astype(np.uint8)


# -- tiles ----------------------------------------------------------------------------------------------------------


def _tiled(files: list[Path], runs: list[Run], size: int, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray] | str]:
    """For each file its map of classes, uint8 (height, width), put together of tiles, and its pixels.

    Or why it cannot be read.
    """
    for path in files:
        try:
            pixels = decode(path)
        except ImageError as error:
            yield str(error)
            continue
        yield _put_together(pixels, runs, size, batch), pixels


def _put_together(pixels: np.ndarray, runs: list[Run], size: int, batch: int) -> np.ndarray:
    import cv2

    height, width = pixels.shape[:2]
    # What is smaller than a tile is continued as it ends.
    margins = [max(0, size - side) for side in (height, width)]
    padded = cv2.copyMakeBorder(pixels, 0, margins[0], 0, margins[1], cv2.BORDER_REPLICATE) if any(margins) else pixels
    downs, acrosses = (spans(side, size) for side in padded.shape[:2])
    places = [(down, across) for down in downs for across in acrosses]

    def cut(place: tuple[tuple[int, int, int], tuple[int, int, int]]) -> np.ndarray:
        (top, *_), (left, *_) = place
        return padded[top : top + size, left : left + size]

    found = np.empty(padded.shape[:2], np.uint8)
    for (down, across), output in zip(places, results(places, cut, runs, batch), strict=True):
        part = class_map(output, size, size)
        (top, first_row, last_row), (left, first_column, last_column) = down, across
        found[first_row:last_row, first_column:last_column] = part[
            first_row - top : last_row - top, first_column - left : last_column - left
        ]
    return found[:height, :width]


def spans(side: int, size: int) -> list[tuple[int, int, int]]:
    """Where tiles of ``size`` pixels lie along a side, evenly spread, and which part of the side each is asked about.

    Returns:
        For each its first pixel, and the first and the last but one that are its own: of two that overlap, each has
        the half that is farther from its border.
    """
    count = 1 if side <= size else math.ceil((side - size) / (size * (1 - OVERLAP))) + 1
    starts = [round(index * (side - size) / max(1, count - 1)) for index in range(count)]
    cuts = [0, *((start + before + size) // 2 for before, start in pairwise(starts)), side]
    return list(zip(starts, cuts[:-1], cuts[1:], strict=True))


# -- files ----------------------------------------------------------------------------------------------------------


def _write_map(found: np.ndarray, classes: list[str], path: Path) -> str:
    """An indexed PNG, as masks to train on are: the index is the class."""
    from PIL import Image

    picture = Image.fromarray(found, mode="P")
    colours = [mask_colour(index, classes) or (0, 0, 0) for index in range(len(classes))]
    picture.putpalette([value for colour in colours for value in colour])
    return save(picture, path)
