"""What is shown of a data set with masks: numbers, a mask over its picture, a contact sheet, the command line."""

import json

import numpy as np
import pytest
from PIL import Image

from mobilenets.data import scenes as module
from mobilenets.data import stamps
from mobilenets.data.mask_drawing import draw_mask, mask_colour
from mobilenets.data.mask_folder import load_masks
from mobilenets.data.mask_sheet import describe_masks, mask_sheet, percentage
from mobilenets.data.masks import IGNORE, MaskData, MaskSplit, pixels_of
from mobilenets.data.scenes import drawn, scene_masks, scenes, unseen_masks
from mobilenets.errors import UserError

CLASSES = ("background", "cat", "dog")
GREY = np.full((40, 60, 3), 120, np.uint8)


def halves() -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 30:] = 1
    mask[30:, :20] = IGNORE
    return mask


def split_of(masks: list[np.ndarray]) -> MaskSplit:
    images = np.full((len(masks), 40, 60, 3), 120, np.uint8)
    sizes = np.full((len(masks), 2), (60, 40), np.int64)
    return MaskSplit(
        images,
        sizes,
        np.array(masks, np.uint8).reshape(-1, 40, 60),
        np.array([pixels_of(mask, 3) for mask in masks], np.int64).reshape(-1, 4),
    )


def data_set(train: list[np.ndarray], val: list[np.ndarray]) -> MaskData:
    return MaskData(
        "zoo", "zoo/", "built-in", CLASSES, split_of(train), split_of(val), 60, True, "f00", (), ("a note",)
    )


def test_numbers():
    about = describe_masks(data_set([halves(), np.zeros((40, 60), np.uint8)], [halves()]))
    assert json.loads(json.dumps(about)) == about
    known = 2 * 2400 - 200
    assert about["classes"] == [
        {
            "class": "background",
            "train": {"share": round((known - 1200) / known, 6), "images": 2},
            "val": {"share": round(1000 / 2200, 6), "images": 1},
        },
        {
            "class": "cat",
            "train": {"share": round(1200 / known, 6), "images": 1},
            "val": {"share": round(1200 / 2200, 6), "images": 1},
        },
        {"class": "dog", "train": {"share": 0.0, "images": 0}, "val": {"share": 0.0, "images": 0}},
    ]
    assert about["ignored"] == {"train": round(200 / 4800, 6), "val": round(200 / 2400, 6)}
    assert (about["train"], about["val"], about["skipped"], about["notes"]) == (2, 1, 0, ["a note"])
    assert about["image_size"] == {
        "width": {"min": 60, "median": 60, "max": 60},
        "height": {"min": 40, "median": 40, "max": 40},
        "measured": 3,
    }


def test_a_drawing_tints_outlines_and_hatches():
    picture = draw_mask(GREY, halves(), CLASSES)
    assert picture.dtype == np.uint8
    assert (GREY == 120).all()
    assert (picture[5, 5] == 120).all()  # background
    cat = np.array(mask_colour(1, CLASSES))
    assert np.abs(picture[5, 50] - (120 + cat) / 2).max() <= 1
    assert np.abs(picture[5, 30] - 0.8 * cat).max() <= 1  # the edge, in full colour
    hatched = picture[33:38, 3:17]
    assert np.ptp(hatched.reshape(-1, 3), axis=0).min() > 40
    assert np.ptp(hatched, axis=-1).max() <= 1  # grey
    assert (draw_mask(GREY, halves() * 0, CLASSES) == GREY).all()
    assert (draw_mask(GREY, np.zeros((40, 60), np.uint8), ("sky", "sea"))[5, 5] != 120).any()
    with pytest.raises(ValueError, match="one size"):
        draw_mask(GREY, np.zeros((4, 4), np.uint8), CLASSES)
    with pytest.raises(ValueError, match="alpha"):
        draw_mask(GREY, halves(), CLASSES, alpha=2)


def test_colours_of_classes_differ():
    names = ("background", *(f"class {index}" for index in range(1, 31)))
    colours = [mask_colour(label, names) for label in range(31)]
    assert colours[0] is None
    assert len(set(colours)) == 31
    assert all(0 <= channel <= 255 for colour in colours[1:] for channel in colour)
    assert mask_colour(0, ("sky", "sea")) == mask_colour(1, ("background", "sea"))


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100.0 %"), (0.123, "12.3 %"), (0.00012, "0.012 %"), (1e-6, "0.0001 %")],
)
def test_shares(share, text):
    assert percentage(share) == text


def test_a_sheet(tmp_path):
    data = data_set([halves()] * 5, [halves()])
    with Image.open(mask_sheet(data, tmp_path / "sheet.png", columns=3, rows=2, thumb=120)) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    cat = np.array(mask_colour(1, CLASSES))
    tinted = (np.abs(pixels - (120 + cat) / 2).max(axis=-1) <= 1).sum()
    assert 0.8 * 5 * 60 * 80 < tinted <= 5 * 60 * 80
    none = data_set([], [])
    with Image.open(mask_sheet(none, tmp_path / "none.png", columns=2, thumb=100)) as sheet:
        assert sheet.height < 200
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another place"):
        mask_sheet(data, tmp_path / "file" / "sheet.png")


def folder(root):
    for index in range(4):
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY + index).save(root / "images" / f"{index}.jpg")
        Image.fromarray(halves()).save(root / "masks" / f"{index}.png")
    return root


def test_a_sheet_outlives_files_that_vanish(tmp_path):
    root = folder(tmp_path / "zoo")
    data = load_masks(root, val_fraction=1)
    (root / "images" / "1.jpg").unlink()
    (root / "masks" / "2.png").unlink()
    with Image.open(mask_sheet(data, tmp_path / "sheet.png", columns=4, thumb=100)) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    cat = np.array(mask_colour(1, CLASSES))
    tinted = (np.abs(pixels - (121.5 + cat) / 2).max(axis=-1) <= 3).sum()
    assert 0.7 * 2 * 50 * 67 < tinted <= 2.2 * 50 * 67


def test_the_command_line(tmp_path, cli):
    root = folder(tmp_path / "zoo")
    (root / "masks" / "3.png").write_bytes(b"no mask")
    status, out, err = cli("data", root, "--task", "segment", "--sheet", tmp_path / "sheet.png")
    assert (status, err) == (0, "")
    for words in ("background", "object", "images and masks", "pixels that are ignored", "3.png: not an image"):
        assert words in out
    assert Image.open(tmp_path / "sheet.png").size[0] > 100
    status, out, err = cli("data", root, "--task", "segment", "--sheet", tmp_path / "sheet.png", "--json")
    about = json.loads(out)
    assert (status, err) == (0, "")
    assert about["contact_sheet"] == str(tmp_path / "sheet.png")
    assert about == describe_masks(load_masks(root)) | {"contact_sheet": about["contact_sheet"]}
    status, _, err = cli("data", root, "--task", "sort")
    assert status == 2
    assert "--task must be classify, detect or segment, not 'sort'" in err


needs_stamps = pytest.mark.skipif(not stamps._DEBIAN.exists(), reason="tuxpaint-stamps-default is not installed")


@needs_stamps
def test_scenes_with_masks(monkeypatch):
    for part, count in {"train": 12, "val": 4, "unseen": 4}.items():
        monkeypatch.setitem(module.COUNTS, part, count)
    data, more, boxes = scene_masks(), unseen_masks(), scenes()
    assert data.classes == ("background", *stamps.CLASSES)
    assert (data.name, data.form, data.native_size, data.flip) == ("stamps", "built-in", 320, True)
    assert len(data.fingerprint) == 64
    assert data.fingerprint != boxes.fingerprint
    np.testing.assert_array_equal(data.train.images, boxes.train.images)
    np.testing.assert_array_equal(data.val.images, boxes.val.images)
    for part, split in (("train", data.train), ("val", data.val), ("unseen", more)):
        assert (split.sizes == 320).all()
        for index in range(len(split)):
            one, mask = drawn(part, index), split.mask(index)
            assert mask.dtype == np.uint8
            assert mask.shape == (320, 320)
            np.testing.assert_array_equal(mask == 0, one.masks == 0)
            for number, label in enumerate(one.labels, 1):
                assert (mask[one.masks == number] == label + 1).all()
            np.testing.assert_array_equal(split.pixels[index], pixels_of(mask, 8))
    assert load_masks("stamps").fingerprint == data.fingerprint
