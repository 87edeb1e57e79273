"""What `mobilenets data` shows: numbers and a contact sheet."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFont

from mobilenets.data import load
from mobilenets.data.sheet import contact_sheet, describe


def photos(root, **counts):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((40 + index, 60 + 2 * index, 3), 10 * index, np.uint8)
            pixels[0, 0] = len(name)  # no two files alike
            (root / name / f"{index}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return root


def test_describe_a_folder(tmp_path):
    root = photos(tmp_path, cat=10, puppy=5)
    (root / "cat" / "broken.jpg").write_bytes(b"")
    (root / "docs").mkdir()
    data = load(root)
    about = json.loads(json.dumps(describe(data)))
    assert about["classes"] == [
        {"class": "cat", "train": 8, "val": 2},
        {"class": "puppy", "train": 4, "val": 1},
    ]
    assert (about["train"], about["val"], about["skipped"], about["imbalance"]) == (12, 3, 1, 2.0)
    assert about["image_size"] == {
        "width": {"min": 60, "median": 66, "max": 78},
        "height": {"min": 40, "median": 43, "max": 49},
        "measured": 15,
    }
    assert about["problems"] == [{"path": str(root / "cat" / "broken.jpg"), "reason": "empty file"}]
    assert about["notes"] == list(data.notes) != []
    assert about["fingerprint"] == data.fingerprint


def test_describe_a_built_in_set():
    about = json.loads(json.dumps(describe(load("digits"))))
    assert about["image_size"]["width"] == {"min": 8, "median": 8, "max": 8}
    assert (about["name"], about["train"], about["val"], about["flip"]) == ("digits", 1438, 359, False)


def test_contact_sheet(tmp_path):
    data = load("digits")
    path = contact_sheet(data, tmp_path / "new" / "sheet.png", per_class=5, thumb=32)
    assert path == tmp_path / "new" / "sheet.png"
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        pixels = np.asarray(sheet.convert("L"))
    assert pixels.shape[0] > 10 * 32
    # Fifty thumbnails of 32x32, on black ground, on a white page.
    assert 0.3 * 50 * 32**2 < (pixels < 100).sum() < 50 * 32**2 + 4000
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]


def test_contact_sheet_of_a_folder_with_a_class_of_one_and_a_vanished_file(tmp_path):
    root = photos(tmp_path / "photos", cat=10, puppy=1, **{"a very long name of a class that cannot fit": 3})
    data = load(root)
    data.train.images[0].unlink()
    with Image.open(contact_sheet(data, tmp_path / "sheet.png")) as sheet:
        assert min(sheet.size) > 300


def test_many_classes_are_cut(tmp_path):
    root = photos(tmp_path / "photos", **{f"class{index}": 2 for index in range(70)})
    with Image.open(contact_sheet(load(root), tmp_path / "sheet.png", per_class=1, thumb=16)) as sheet:
        assert sheet.height < 62 * 20 + 200


def test_names_in_chinese_are_readable_where_a_font_is_installed(tmp_path):
    try:
        ImageFont.truetype("NotoSansCJK-Regular.ttc", 10)
    except OSError:
        pytest.skip("needs the font Noto Sans CJK")
    data = load(photos(tmp_path / "photos", 猫=2, 犬=2))
    with Image.open(contact_sheet(data, tmp_path / "sheet.png", thumb=96)) as sheet:
        label = np.asarray(sheet.convert("L"))[:, :100]
    # Two rows of label, below a head of four lines of 16 pixels: different letters, not two empty boxes.
    first, second = (label[64 + row * 108 :][30:52] for row in (0, 1))
    assert (first < 128).sum() > 20
    assert not np.array_equal(first, second)
