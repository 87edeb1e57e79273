"""Folders of images with masks: pairs of files, Pascal VOC's layout, parts, and how they are split."""

from pathlib import Path

import numpy as np
import pytest

from folders import noted
from mask_folders import blocks, found, paint, pairs, put, voc, write
from mobilenets.data.mask_folder import load_masks


def test_images_and_masks_in_folders_of_their_own(tmp_path):
    data = load_masks(pairs(tmp_path / "farm", 5))
    assert (data.name, data.source, data.form) == ("farm", str(tmp_path / "farm"), "images and masks")
    assert (data.native_size, data.flip, data.problems, data.notes) == (None, True, (), ())
    assert data.classes == ("background", "class 1", "class 2")
    assert (len(data.train), len(data.val)) == (4, 1)
    assert all(path.is_absolute() for path in data.train.images)
    masks = found(data)
    assert sorted(masks) == [f"{index}.jpg" for index in range(5)]
    for mask in masks.values():
        np.testing.assert_array_equal(mask, blocks(0, 1, 2))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.jpg", "masks/a.png"),
        ("Images/a.jpg", "Labels/a_mask.png"),
        ("imgs/a.png", "annotations/a_label.png"),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png"),
        ("images/b 1/a.jpg", "masks/b 1/a.png"),
        ("one/images/a.jpg", "one/gt/a.bmp"),
        ("a.jpg", "a_mask.png"),
        ("photos/a.webp", "photos/a-label.png"),
        ("a.jpg", "masks/a.png"),
        ("images/a_mask.jpg", "masks/a_mask.png"),
        ("all/a.jpg", "all_masks/a.gif"),
    ],
)
def test_names_of_masks(tmp_path, image, mask):
    put(tmp_path / image)
    paint(tmp_path / mask, blocks(0, 1).astype(np.uint8))
    data = load_masks(tmp_path, val_fraction=1)
    assert (len(data.train), len(data.val)) == (0, 1)
    np.testing.assert_array_equal(found(data)[Path(image).name], blocks(0, 1))
    assert data.classes == ("background", "object")


@pytest.mark.parametrize(
    "names",
    [
        ("images/{}/x.jpg", "masks/{}/x.png"),
        ("{}/images/x.jpg", "{}/masks/x.png"),
        ("{}/x.jpg", "{}_masks/x.png"),
        ("{}/x.jpg", "{}annot/x.png"),
    ],
)
def test_parts(tmp_path, names):
    for part in ("train", "val"):
        image, mask = (name.format(part).replace("x", part) for name in names)
        put(tmp_path / image)
        paint(tmp_path / mask, blocks(0, 1).astype(np.uint8))
    data = load_masks(tmp_path)
    assert [path.name for path in data.train.images] == ["train.jpg"]
    assert [path.name for path in data.val.images] == ["val.jpg"]


def test_the_layout_of_voc(tmp_path):
    put(tmp_path / "JPEGImages" / "boxes_only.jpg")
    data = load_masks(voc(tmp_path, {"train": "a b", "val": "c"}, "d"))
    assert [path.name for path in data.train.images] == ["a.jpg", "b.jpg"]
    assert [path.name for path in data.val.images] == ["c.jpg"]
    assert (len(data.classes), data.classes[:4]) == (21, ("background", "aeroplane", "bicycle", "bird"))
    assert noted(data, "no list", "VOC")
    assert noted(data, "in no list of ImageSets/Segmentation", "d.png")
    assert noted(data, "1 image without a mask", "boxes_only.jpg")
    for mask in found(data).values():
        np.testing.assert_array_equal(mask, blocks(0, 1, 3, 255))
    write(tmp_path / "classes.txt", "sky\nsea\nland\nship")
    assert load_masks(tmp_path).classes == ("sky", "sea", "land", "ship")
