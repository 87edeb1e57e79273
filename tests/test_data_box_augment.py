"""Boxes follow what they frame: rectangles are painted, changed, and found again by their colours."""

from itertools import product

import numpy as np
import pytest
from PIL import Image

from mobilenets.data import box_augment_sheet
from mobilenets.data.box_augment import IGNORED, BoxAugment, compose
from mobilenets.data.boxes import BoxData, BoxSplit

CANVAS = (124, 116, 104)
# None is another one darkened, so that a rectangle's edge on black does not look like another rectangle.
COLOURS = np.array([colour for colour in product((0, 85, 170, 255), repeat=3) if max(colour) == 255])[:24]
STILL = {"flip": False, "scale": (1.0, 1.0), "aspect": 1.0, "mosaic": 0.0, "colour": 0.0}


def painted(rng: np.random.Generator, height: int, width: int, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A black image with a rectangle in each cell of a grid of 3 by 2: six classes from ``start`` in their colours."""
    image = np.zeros((height, width, 3), np.uint8)
    rows = []
    for label, colour in enumerate(COLOURS[start : start + 6], start):
        cell = np.array([width / 3, height / 2])
        first = np.array([label % 3, (label - start) // 3]) * cell
        left, top = np.round(first + rng.uniform(0.1, 0.3, 2) * cell).astype(int)
        right, bottom = np.round(first + rng.uniform(0.6, 0.9, 2) * cell).astype(int)
        image[top:bottom, left:right] = colour
        rows.append((left / width, top / height, right / width, bottom / height, label))
    return image, np.array(rows)


def composed(images, objects, augment: BoxAugment, seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    out = np.full((size, size, 3), 77, np.uint8)
    rows = compose(images, objects, augment, np.random.default_rng(seed), out)
    assert rows.dtype == np.float32
    assert rows.shape == (len(rows), 5)
    assert (rows[:, :4] >= 0).all()
    assert (rows[:, :4] <= 1).all()
    assert (rows[:, :2] < rows[:, 2:4]).all()
    return out, rows


def assert_framed(image: np.ndarray, rows: np.ndarray) -> None:
    """Each row frames its colour to 1.5 pixels, and nothing painted is without a row."""
    size = len(image)
    painted = (image.max(axis=2) > 100) & (image != CANVAS).any(axis=2)
    for *box, label in rows:
        left, top, right, bottom = np.array(box) * size
        painted[int(max(0, top - 1.5)) : int(bottom + 2.5), int(max(0, left - 1.5)) : int(right + 2.5)] = False
        if min(right - left, bottom - top) < 3:
            continue
        colour = image[int((top + bottom) / 2), int((left + right) / 2)].astype(float)
        if label != IGNORED:
            assert np.abs(colour - COLOURS[int(label)]).max() <= 2
        first = np.maximum(np.floor((left - 4, top - 4)), 0).astype(int)
        near = image[first[1] : int(bottom + 5), first[0] : int(right + 5)].astype(float)
        share = near @ colour / (colour @ colour)
        of_it = (share > 0.5) & (np.abs(near - share[..., None] * colour).max(axis=2) < 40 * share)
        y, x = np.nonzero(of_it)
        found = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) + np.tile(first, 2)
        assert np.abs(found - (left, top, right, bottom)).max() <= 1.5
    assert not painted.any()


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("size", [320, 97])
@pytest.mark.parametrize("change", [{}, {"scale": (0.5, 1.6)}, {"scale": (0.8, 3.0), "aspect": 2.0}, {"flip": True}])
def test_boxes_frame_what_they_framed(change, size, count):
    augment = BoxAugment(**(STILL | change))
    rng = np.random.default_rng(1)
    rows = 0
    for seed in range(25):
        pairs = [painted(rng, *rng.integers(0.8 * size, 1.3 * size, 2), 6 * index) for index in range(count)]
        before = [image.copy() for image, _ in pairs]
        image, found = composed(*zip(*pairs, strict=True), augment, seed, size)
        assert_framed(image, found)
        assert all(np.array_equal(old, image) for old, (image, _) in zip(before, pairs, strict=True))
        rows += len(found)
    assert rows > 60


def test_nothing():
    image, rows = painted(np.random.default_rng(0), 60, 60)
    out, found = composed([image], [rows], BoxAugment(**STILL), 0, 60)
    assert np.array_equal(out, image)
    assert np.allclose(found, rows)


def test_flip_mirrors_about_half():
    image, rows = painted(np.random.default_rng(0), 60, 60)
    mirrored = 0
    for seed in range(200):
        out, found = composed([image], [rows], BoxAugment(**(STILL | {"flip": True})), seed, 60)
        if not np.array_equal(out, image):
            mirrored += 1
            assert np.array_equal(out, image[:, ::-1])
            assert np.allclose(found, np.column_stack([1 - rows[:, 2], rows[:, 1], 1 - rows[:, 0], rows[:, 3:]]))
    assert 70 < mirrored < 130


def test_scale_and_aspect_are_those_asked_for():
    image = np.full((100, 100, 3), 255, np.uint8)
    sides = []
    for seed in range(300):
        augment = BoxAugment(**(STILL | {"scale": (0.5, 0.8), "aspect": 1.44}))
        out, ((left, top, right, bottom, _),) = composed([image], [np.array([[0, 0, 1, 1, 0]])], augment, seed, 200)
        white = (out == 255).all(axis=2)
        assert white.sum() == round((right - left) * 200) * round((bottom - top) * 200)
        assert (out[~white] == CANVAS).all()
        sides.append((right - left, bottom - top))
    width, height = np.array(sides).T
    scale, aspect = np.sqrt(width * height), width / height
    assert 0.49 < scale.min() < 0.52
    assert 0.78 < scale.max() < 0.81
    assert 0.68 < aspect.min() < 0.75
    assert 1.33 < aspect.max() < 1.47


def test_the_visible_share_decides():
    image = np.zeros((100, 100, 3), np.uint8)
    image[30:70, 20:60] = 255
    rows = np.array([[0.2, 0.3, 0.6, 0.7, 3]])
    seen = {"kept": 0, "ignored": 0, "gone": 0}
    for seed in range(400):
        out, found = composed([image], [rows], BoxAugment(**(STILL | {"scale": (3.0, 3.0)})), seed, 100)
        share = (out[..., 0] > 127).sum() / (120 * 120)
        assert len(found) <= 1
        if not len(found):
            assert share < 0.001
            seen["gone"] += 1
        elif found[0, 4] == 3:
            assert share > 0.28
            seen["kept"] += 1
        else:
            assert found[0, 4] == IGNORED
            assert share < 0.32
            seen["ignored"] += 1
    assert min(seen.values()) > 20


@pytest.mark.parametrize(("least", "classes"), [(0.0, {3.0}), (1.0, {float(IGNORED)})])
def test_the_least_visible_share_can_be_chosen(least, classes):
    image = np.zeros((50, 50, 3), np.uint8)
    rows = np.array([[0.0, 0.0, 1.0, 1.0, 3.0]])
    augment = BoxAugment(**(STILL | {"scale": (2.0, 2.0), "least_visible": least}))
    assert {float(composed([image], [rows], augment, seed, 50)[1][0, 4]) for seed in range(20)} == classes


def test_what_is_ignored_stays_ignored():
    rng = np.random.default_rng(2)
    total = 0
    for seed in range(50):
        pairs = [painted(rng, 90, 90) for _ in range(4 if seed % 2 else 1)]
        for _, rows in pairs:
            rows[::2, 4] = IGNORED
        _, found = composed(*zip(*pairs, strict=True), BoxAugment(), seed, 80)
        assert set(found[:, 4]) <= {IGNORED, 1, 3, 5}
        total += (found[:, 4] == IGNORED).sum()
    assert total > 100


def test_less_than_a_pixel_is_ignored():
    rows = np.array([[0.5, 0.5, 0.51, 0.9, 2], [0.1, 0.1, 0.13, 0.2, 4], [0.3, 0.3, 0.3004, 0.4, 1]])
    augment = BoxAugment(**(STILL | {"scale": (0.5, 0.5)}))
    _, found = composed([np.zeros((100, 100, 3), np.uint8)], [rows], augment, 0, 100)
    assert found[:, 4].tolist() == [IGNORED, 4]  # half a pixel, one and a half; a fiftieth cannot be seen
    for seed in range(100):
        *_, found = composed([np.zeros((100, 100, 3), np.uint8)], [rows], BoxAugment(), seed, 30)
        sides = (found[:, 2:4] - found[:, :2])[found[:, 4] != IGNORED] * 30
        assert (sides > 0.9999).all()


def test_a_mosaic_shows_four_images_that_fill_it_and_meet_anywhere_in_the_middle():
    images = [np.full((50, 70, 3), value, np.uint8) for value in (10, 60, 160, 210)]
    centres = []
    for seed in range(100):
        out, _ = composed(images, [np.zeros((0, 5))] * 4, BoxAugment(colour=0), seed, 80)
        grey = out[..., 0]
        x, y = (grey[0] == 10).sum(), (grey[:, 0] == 10).sum()
        quarters = grey[:y, :x], grey[:y, x:], grey[y:, :x], grey[y:, x:]
        assert all((part == value).all() for part, value in zip(quarters, (10, 60, 160, 210), strict=True))
        centres.append((x, y))
    assert np.min(centres) in (20, 21)
    assert np.max(centres) in (59, 60)


@pytest.mark.parametrize("shape", [(400, 400), (30, 400)])
def test_fine_stripes_do_not_alias(shape):
    image = np.zeros((*shape, 3), np.uint8)
    image[:, ::2] = 255
    augment = BoxAugment(**(STILL | {"scale": (0.3, 0.7)}))
    for seed in range(20):
        out, _ = composed([image], [np.zeros((0, 5))], augment, seed, 200)
        inside = out[(out != CANVAS).any(axis=2)]
        assert len(inside) > 1000
        assert np.ptp(inside) < 130  # a bilinear or nearest resize leaves black and white: 255


def test_colour_stays_within_its_limits():
    grey, reddish = (np.full((8, 8, 3), colour, np.uint8) for colour in (100, (120, 100, 100)))
    augment = BoxAugment(**(STILL | {"colour": 1.0}))
    differences = np.array([(0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])  # of YIQ
    before = differences @ reddish[0, 0]
    levels, strengths, turns = [], [], []
    for seed in range(400):
        out, _ = composed([grey], [np.zeros((0, 5))], augment, seed, 8)
        assert np.ptp(out) <= 1
        levels.append(out.mean() / 100)
        out, _ = composed([reddish], [np.zeros((0, 5))], augment, seed, 8)
        assert (out == out[0, 0]).all()
        after = differences @ out[0, 0]
        luma = out[0, 0] @ (0.299, 0.587, 0.114)
        strengths.append(np.hypot(*after) / luma / (np.hypot(*before) / 105.98))
        if np.hypot(*after) > 12:
            turns.append(np.degrees(np.arctan2(after[1], after[0]) - np.arctan2(before[1], before[0])))
    assert 0.49 < min(levels) < 0.55
    assert 1.45 < max(levels) < 1.51
    assert 0.2 < min(strengths) < 0.45  # contrast and saturation both
    assert 1.7 < max(strengths) < 2.35
    assert -20 < min(turns) < -15
    assert 15 < max(turns) < 20


def test_contrast_spreads_about_the_mean():
    image = np.full((8, 8, 3), 90, np.uint8)
    image[:4] = 110
    spreads = []
    for seed in range(200):
        out, _ = composed([image], [np.zeros((0, 5))], BoxAugment(**(STILL | {"colour": 1.0})), seed, 8)
        spreads.append(np.ptp(out[..., 0]) / out[..., 0].mean() / 0.2)
    assert 0.45 < min(spreads) < 0.65
    assert 1.35 < max(spreads) < 1.6


def test_all_chance_comes_from_the_generator():
    pairs = [painted(np.random.default_rng(seed), 60, 80) for seed in range(4)]
    for some in (pairs[:1], pairs):
        first, again, other = (composed(*zip(*some, strict=True), BoxAugment(), seed, 64) for seed in (1, 1, 2))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (50, 400), (400, 50)])
def test_images_of_any_shape(shape):
    rows = np.array([[0, 0, 1, 1, 0]])
    for seed in range(30):
        for count in (1, 4):
            out, found = composed([np.zeros((*shape, 3), np.uint8)] * count, [rows] * count, BoxAugment(), seed, 33)
            assert out.shape == (33, 33, 3)
            assert len(found) == count


def test_a_network_of_one_pixel():
    out, _ = composed([np.zeros((9, 9, 3), np.uint8)], [np.array([[0, 0, 1, 1, 0]])], BoxAugment(), 0, 1)
    assert out.shape == (1, 1, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": (0, 1)},
        {"scale": (0.8, 0.5)},
        {"scale": (0.5, float("inf"))},
        {"aspect": 0.9},
        {"mosaic": 1.5},
        {"colour": -0.1},
        {"least_visible": float("nan")},
    ],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BoxAugment(**wrong)


def test_the_sheet_shows_training_images_and_their_boxes(tmp_path, monkeypatch):
    pairs = [painted(np.random.default_rng(seed), 64, 64) for seed in range(3)]
    split = BoxSplit(
        np.stack([image for image, _ in pairs]),
        np.full((3, 2), 64),
        tuple(np.float32(rows[:, :4] * 64) for _, rows in pairs),
        tuple(rows[:, 4].astype(np.int64) for _, rows in pairs),
        tuple(np.arange(6) == 5 for _ in pairs),
    )
    data = BoxData("rectangles", "", "built-in", tuple("abcdef"), split, split, 64, False, "")
    drawn = []

    def draw(image, boxes, labels, classes, *, ignored):
        drawn.append(image)
        assert all((classes[label] == "ignored") == away for label, away in zip(labels, ignored, strict=True))
        keep = ~ignored
        rows = np.column_stack([boxes / 64, np.where(ignored, IGNORED, labels)])
        assert 0 < keep.sum() < 6
        assert_framed(image, rows)
        return image

    for augment in (None, BoxAugment(flip=True, scale=(0.7, 0.9), mosaic=0, colour=0)):
        path = tmp_path / "sheet.png"
        with monkeypatch.context() as patch:
            patch.setattr(box_augment_sheet, "draw_boxes", draw)
            assert box_augment_sheet.augmented_sheet(data, path, 64, augment, columns=4, rows=2) == path
        assert len(drawn) == 8
        sheet = np.asarray(Image.open(path))
        assert sheet.shape == (2 * 72 + 8, 4 * 72 + 8, 3)
        for index, image in enumerate(drawn):
            top, left = 8 + index // 4 * 72, 8 + index % 4 * 72
            assert np.array_equal(sheet[top : top + 64, left : left + 64], image)
        if augment is None:
            assert {image.tobytes() for image in drawn} == {image.tobytes() for image, _ in pairs}
        drawn.clear()
        box_augment_sheet.augmented_sheet(data, path, 64, augment, columns=4, rows=2)
        assert not np.array_equal(np.asarray(Image.open(path)), sheet)
    with pytest.raises(ValueError, match="columns"):
        box_augment_sheet.augmented_sheet(data, tmp_path / "none.png", columns=0)
    sheets = []
    for flip in (True, False):  # as it is trained on, whatever the data allows where nobody says
        augment = BoxAugment(flip=flip, scale=(1, 1), aspect=1, mosaic=0, colour=0)
        sheets.append(box_augment_sheet.augmented_sheet(data, path, 64, augment).read_bytes())
    assert sheets[0] != sheets[1]
