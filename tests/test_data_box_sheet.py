"""What is shown of a data set with boxes: numbers, boxes on a picture, a contact sheet."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from mobilenets.data.box_drawing import PALETTE, colour, draw_boxes, ink_on, percentage
from mobilenets.data.box_sheet import box_sheet, describe_boxes
from mobilenets.data.boxes import BoxData, BoxSplit
from mobilenets.data.types import Problem
from mobilenets.errors import UserError

GREY = np.full((200, 300, 3), 128, np.uint8)


def split(images, sizes, boxes, labels, ignored=None):
    boxes = tuple(np.array(each, np.float32).reshape(-1, 4) for each in boxes)
    labels = tuple(np.array(each, np.int64) for each in labels)
    if ignored is None:
        ignored = [[False] * len(each) for each in labels]
    return BoxSplit(
        images, np.array(sizes, np.int64).reshape(-1, 2), boxes, labels, tuple(np.array(each, bool) for each in ignored)
    )


def data_set(train, val, classes=("cat", "dog"), native_size=None, **more):
    return BoxData("pets", "some/pets", "COCO JSON", tuple(classes), train, val, native_size, True, "f1", **more)


def photos(root, sizes):
    root.mkdir()
    paths = []
    for index, (width, height) in enumerate(sizes):
        path = root / f"{index}.png"
        path.write_bytes(cv2.imencode(".png", np.full((height, width, 3), 60 + index, np.uint8))[1].tobytes())
        paths.append(path)
    return tuple(paths)


def pixels_of(image, fill):
    """Where an image has exactly that colour: bool (H, W)."""
    return (image == [int(fill[at : at + 2], 16) for at in (1, 3, 5)]).all(axis=-1)


@pytest.fixture
def folder(tmp_path):
    sizes = [(400, 200), (200, 400), (300, 300)]
    paths = photos(tmp_path / "photos", sizes)
    # Of the shares of their images, the sides are 0.5, 0.02, 0.1 and, ignored, 1.
    boxes = [[[0, 0, 200, 100], [10, 10, 18, 14], [0, 0, 400, 200]], [[0, 0, 20, 40]], []]
    train = split(paths, sizes, boxes, [[0, 1, 1], [1], []], [[False, False, True], [False], []])
    val = split(paths[:1], sizes[:1], [[[0, 0, 9, 9]]], [[0]])
    return data_set(train, val, problems=(Problem("some/pets/x.jpg", "truncated"),), notes=("few images",))


def test_describe(folder):
    about = json.loads(json.dumps(describe_boxes(folder)))
    assert about == {
        "name": "pets",
        "source": "some/pets",
        "form": "COCO JSON",
        "fingerprint": "f1",
        "flip": True,
        "train": 3,
        "val": 1,
        "skipped": 1,
        "objects": {"train": 3, "val": 1},
        "ignored": {"train": 1, "val": 0},
        "images_without_objects": {"train": 1, "val": 0},
        "classes": [{"class": "cat", "train": 1, "val": 1}, {"class": "dog", "train": 2, "val": 0}],
        "objects_per_image": {"min": 0, "median": 1, "max": 2},
        "object_size": {
            "share": {"p5": 0.028, "p50": 0.1, "p95": 0.46},
            "input": 320,
            "under_8_pixels": 1,
            "under_16_pixels": 1,
        },
        "image_size": {
            "width": {"min": 200, "median": 350, "max": 400},
            "height": {"min": 200, "median": 250, "max": 400},
            "measured": 4,
        },
        "problems": [{"path": "some/pets/x.jpg", "reason": "truncated"}],
        "notes": ["few images"],
    }


def test_describe_nothing_to_train_on(folder):
    none = split((), [], [], [])
    about = json.loads(json.dumps(describe_boxes(data_set(none, folder.val))))
    assert about["objects_per_image"] is None
    assert about["object_size"] == {"share": None, "input": 320, "under_8_pixels": 0, "under_16_pixels": 0}
    assert about["classes"] == [{"class": "cat", "train": 0, "val": 1}, {"class": "dog", "train": 0, "val": 0}]
    assert about["image_size"]["measured"] == 1


def test_lines_run_just_outside_of_their_boxes():
    before = GREY.copy()
    drawn = draw_boxes(GREY, np.array([[100, 80, 160, 140]]), np.array([0]), ["cat"])
    np.testing.assert_array_equal(before, GREY)
    assert (drawn.shape, drawn.dtype) == (GREY.shape, np.uint8)
    assert (drawn[80:140, 100:160] == 128).all()
    line = pixels_of(drawn, colour(0))
    for row, column in ((79, slice(100, 160)), (140, slice(100, 160)), (slice(80, 140), 99), (slice(80, 140), 160)):
        assert line[row, column].all()
    # The name, on the same colour, stands above; all is grey ten pixels further.
    assert line[65:78, 100:110].any()
    assert (drawn[155:] == 128).all()
    assert (drawn[:, :85] == 128).all()
    drawn[0, 0] = 7  # it can be written to


def test_boxes_at_the_border_and_beyond_it_keep_their_lines():
    boxes = np.array([[0, 0, 300, 200], [-50, 150, 20, 260], [400, 300, 500, 400]], np.float32)
    drawn = draw_boxes(GREY, boxes, np.array([0, 1, 2]), ["cat", "dog", "cow"])
    first, second, third = (pixels_of(drawn, colour(label)) for label in range(3))
    assert first[0, 100:].all()
    assert first[:130, 0].all()
    assert first[:130, -1].all()
    assert second[-1, :15].all()
    assert second[155:, 20].any()
    assert third[150:, 200:].any()


def test_names_are_written_beside_their_boxes_and_do_not_hide_each_other():
    boxes = np.array([[40, 60, 90, 110], [42, 62, 92, 112], [44, 64, 94, 114]])
    drawn = draw_boxes(GREY, boxes, np.arange(3), ["cat"] * 3)
    for label in range(3):
        alone = pixels_of(draw_boxes(GREY, boxes[:1], [label], ["cat"] * 3), colour(label)).sum()
        # As much is left, but for what the lines of the others cross.
        assert pixels_of(drawn, colour(label)).sum() > 0.6 * alone


def test_scores_and_numbers_are_written_beside_the_names():
    box = np.array([[100, 100, 110, 110]])
    widths = [
        np.ptp(np.flatnonzero(pixels_of(draw_boxes(GREY, box, [0], ["cat"], **more), colour(0)).any(axis=0)))
        for more in ({}, {"numbers": True}, {"scores": [1.0]}, {"scores": [1.0], "numbers": True})
    ]
    assert widths == sorted(set(widths))


def test_percentages_do_not_promise_too_much():
    assert [percentage(score) for score in (0.0, 0.504, 0.996, 1.0)] == ["0%", "50%", "99%", "100%"]


def test_a_long_name_is_cut():
    drawn = draw_boxes(GREY, [[10, 100, 60, 150]], [0], ["a class whose name is so long that it cannot fit at all"])
    assert 60 < np.flatnonzero(pixels_of(drawn, colour(0)).any(axis=0)).max() < 220


def test_ignored_boxes_are_dashed():
    box = np.array([[100, 80, 200, 180]])
    lines = [
        pixels_of(draw_boxes(GREY, box, [0], ["cat"], ignored=np.array([ignored])), colour(0))[180]
        for ignored in (False, True)
    ]
    assert lines[0][100:200].all()
    assert 0.3 < lines[1][100:200].mean() < 0.7
    assert np.abs(np.diff(lines[1][100:200].astype(int))).sum() > 8


def test_many_boxes_have_thin_lines_and_no_names():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1, (500, 2)) * (560, 360)
    boxes = np.concatenate([corners, corners + rng.uniform(10, 40, (500, 2))], axis=1)
    drawn = draw_boxes(np.full((400, 600, 3), 128, np.uint8), boxes, np.zeros(500, int), ["cat"])
    line = pixels_of(drawn, colour(0))
    assert line.sum() + (drawn == 128).all(axis=-1).sum() == line.size  # neither names nor rims
    ends = np.clip(boxes.round().astype(int), 0, None)
    assert line.sum() <= (2 * (ends[:, 2:] - ends[:, :2] + 2)).sum()  # one pixel wide
    # A box alone, as small, has a name.
    assert not (draw_boxes(GREY, boxes[:1] / 2, [0], ["cat"]) == GREY).all()


def test_no_box_no_change():
    np.testing.assert_array_equal(draw_boxes(GREY, np.zeros((0, 4)), np.zeros(0, int), ["cat"]), GREY)


def test_colours_belong_to_classes():
    assert len(set(PALETTE)) == len(PALETTE) >= 10
    assert colour(0) == colour(len(PALETTE)) == PALETTE[0]
    for fill in PALETTE:
        shades = [
            sum(
                weight * (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
                for weight, value in zip((0.2126, 0.7152, 0.0722), rgb, strict=True)
            )
            for rgb in ([int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)] for text in (fill, ink_on(fill)))
        ]
        assert (max(shades) + 0.05) / (min(shades) + 0.05) > 4.5  # what WCAG asks of text


def test_sheet_of_a_built_in_set(tmp_path):
    images = np.full((50, 64, 64, 3), 128, np.uint8)
    images += np.arange(50, dtype=np.uint8)[:, None, None, None]
    boxes, labels = [[[16, 16, 48, 48]]] * 50, [[1]] * 50
    train = split(images, [(64, 64)] * 50, boxes, labels)
    data = data_set(train, train.chosen(np.arange(5)), native_size=64)
    path = box_sheet(data, tmp_path / "new" / "sheet.png", columns=3, rows=2, thumb=128)
    assert path == tmp_path / "new" / "sheet.png"
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        pixels = np.asarray(sheet.convert("RGB"))
    # Six images, from the first to the last; each box encloses 64x64 pixels of its image.
    for value in (128, 177):
        assert 64 * 64 < (pixels == value).all(axis=-1).sum() < 128 * 128
    shades = [value for value in range(128, 178) if (pixels == value).all(axis=-1).sum() > 3000]
    assert len(shades) == 6
    assert np.ptp(np.diff(shades)) <= 1
    # Lines and names in the colour of the second class; of the first there is its place in the legend only.
    assert pixels_of(pixels, colour(1)).sum() > 6 * 4 * 64
    assert 50 < pixels_of(pixels, colour(0)).sum() < 200


def test_sheet_of_a_folder_keeps_shapes_and_outlives_a_vanished_file(folder, tmp_path):
    folder.train.images[2].unlink()
    with Image.open(box_sheet(folder, tmp_path / "sheet.png", columns=3, rows=2, thumb=120)) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert pixels.shape[0] < 400  # one row
    for value, shape in ((60, (60, 120)), (61, (120, 60))):
        rows, columns = np.nonzero((pixels == value).all(axis=-1))
        assert np.ptp(rows) + 1 <= shape[0]
        assert np.ptp(columns) + 1 <= shape[1]
        assert np.ptp(rows) + np.ptp(columns) > 150
    # The small dog (20 x 40 of 200 x 400 pixels) is where it belongs in the picture that stands upright.
    rows, columns = np.nonzero((pixels == 61).all(axis=-1))
    # Its lines end with row 13, and below them is its name.
    line = pixels_of(pixels, colour(1))[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert line[5:13, 6].all()
    assert not line[30:].any()


def test_sheet_without_training_images_or_boxes(folder, tmp_path):
    none = split((), [], [], [])
    with Image.open(box_sheet(data_set(none, folder.val), tmp_path / "val.png", columns=2, thumb=100)) as sheet:
        assert (np.asarray(sheet.convert("RGB")) == 60).all(axis=-1).sum() > 3000
    with Image.open(box_sheet(data_set(none, none), tmp_path / "none.png", columns=2, thumb=100)) as sheet:
        assert sheet.height < 200


def test_sheet_of_many_classes(folder, tmp_path):
    def height(count):
        data = data_set(folder.train, folder.val, [f"class {index}" for index in range(count)])
        with Image.open(box_sheet(data, tmp_path / "sheet.png", columns=4, thumb=100)) as sheet:
            return sheet.height

    assert height(2) < height(80) < height(120) == height(1000)


def test_sheet_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another place"):
        box_sheet(folder, tmp_path / "file" / "sheet.png")
