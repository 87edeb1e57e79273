"""Boxes on photos that EXIF turns."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from box_folders import HEIGHT, WIDTH, coco, content, voc, write
from folders import noted
from mobilenets.data import images
from mobilenets.data.box_folder import load_boxes

MARK = (5, 8, 25, 20)  # left, top, right, bottom of a white box on a stored picture of 80x60 pixels


def photo(path: Path, orientation: int, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """A black picture with a white box, which EXIF wants to be turned."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[MARK[1] : MARK[3], MARK[0] : MARK[2]] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, quality=100, subsampling=0, exif=exif)
    return path


def seen(path: Path) -> tuple[int, int, int, int]:
    """Where the white box is once the picture stands upright."""
    rows, columns = np.nonzero(images.decode(path).min(axis=2) > 127)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn", ["upright", "stored"])
@pytest.mark.parametrize("form", ["coco", "voc"])
def test_boxes_on_photos_that_exif_turns(tmp_path, orientation, drawn, form):
    path = photo(tmp_path / "a.jpg", orientation)
    photo(tmp_path / "b.jpg", 6)  # tells which of both it was for those that cannot tell
    turned = orientation >= 5
    rows = {}
    for name, size in (("a", (60, 80) if turned else (80, 60)), ("b", (60, 80))):
        box = MARK if drawn == "stored" else seen(tmp_path / f"{name}.jpg")
        rows[name] = ((80, 60) if drawn == "stored" else size), box
    if form == "voc":
        for name, (size, (left, top, right, bottom)) in rows.items():
            voc(tmp_path / f"{name}.xml", ("cat", left + 1, top + 1, right, bottom), size=size)
    else:
        listed = [
            {"id": 1000 + i, "file_name": f"{name}.jpg", "width": size[0], "height": size[1]}
            for i, (name, (size, _)) in enumerate(rows.items())
        ]
        boxes = [(i, 3, x, y, right - x, low - y) for i, (_, (x, y, right, low)) in enumerate(rows.values())]
        boxes = [tuple(map(int, box)) for box in boxes]
        coco(tmp_path / "a.json", [], boxes, images=listed)
    data = load_boxes(tmp_path)
    found = content(data, tmp_path)
    assert found["a.jpg"] == [("cat", tuple(map(float, seen(path))), False)]
    assert found["b.jpg"] == [("cat", tuple(map(float, seen(tmp_path / "b.jpg"))), False)]
    sizes = {
        path.name: size
        for split in (data.train, data.val)
        for path, size in zip(split.images, split.sizes, strict=True)
    }
    assert sizes["a.jpg"].tolist() == [*images.decode(path).shape[1::-1]]
    assert noted(data, "as it is stored") == (drawn == "stored")


def test_one_upright_photo_speaks_against_turning_those_that_cannot_tell(tmp_path):
    for name, orientation in (("a", 6), ("b", 6), ("c", 3)):
        photo(tmp_path / f"{name}.jpg", orientation)
    voc(tmp_path / "a.xml", ("cat", 1, 1, 10, 20), size=(80, 60))  # stored
    voc(tmp_path / "b.xml", ("cat", 1, 1, 10, 20), size=(60, 80))  # upright
    voc(tmp_path / "c.xml", ("cat", 1, 1, 10, 20), size=(80, 60))
    found = content(load_boxes(tmp_path), tmp_path)
    assert found["a.jpg"] == [("cat", (40, 0, 60, 10), False)]
    assert found["b.jpg"] == found["c.jpg"] == [("cat", (0, 0, 10, 20), False)]


def test_yolo_boxes_are_those_of_the_upright_picture(tmp_path):
    for name in "ab":
        left, top, right, bottom = seen(photo(tmp_path / f"{name}.jpg", 6))
        shares = (left + right) / 120, (top + bottom) / 160, (right - left) / 60, (bottom - top) / 80
        write(tmp_path / f"{name}.txt", " ".join(map(str, (0, *shares))))
    write(tmp_path / "classes.txt", "cat")
    found = content(load_boxes(tmp_path), tmp_path)
    assert found["a.jpg"] == [("cat", tuple(map(float, seen(tmp_path / "a.jpg"))), False)]
