"""Pictures of segmenters: PNGs of a readable size, whatever the sizes of the images, the classes and their names."""

import warnings

import numpy as np
import pytest
from PIL import Image

from mobilenets.data.masks import IGNORE
from mobilenets.evaluation import draw_curves
from mobilenets.evaluation.mask_pictures import WRONG, draw_mask_confusion, draw_worst_masks
from mobilenets.evaluation.segmentation import Tally

NAMES = ["$x_{1}$ 50% of \\alpha", "猫とねこ고양이", "line\nbreak\x07\udce9", "x" * 300, "سلام", "🐈"]
HISTORY = [
    {"epoch": 1, "loss": 2.5, "val_miou": 0.12, "val_pixel_accuracy": 0.6, "learning_rate": 0.1, "seconds": 9},
    {"epoch": 2, "loss": 1.5, "val_miou": 0.4567, "val_pixel_accuracy": 0.8, "learning_rate": 0.1, "seconds": 9},
    {"epoch": 3, "loss": 1.1, "val_miou": 0.42, "val_pixel_accuracy": 0.82, "learning_rate": 0.0, "seconds": 9},
]


@pytest.fixture(autouse=True)
def silent():
    """Drawing must not warn, whatever it draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def read(path):
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int), image.size


def near(pixels, colour, slack=12):
    """How many pixels have a colour (red, green, blue)."""
    return int((abs(pixels - colour).max(axis=-1) <= slack).sum())


def scenes(images=4, classes=4, shape=(60, 80), seed=0, ignored=True):
    """Images, their maps with a square of a class in each, and maps as a segmenter might find them."""
    draw = np.random.default_rng(seed)
    pictures, truths, founds = [], [], []
    for index in range(images):
        high, wide = shape
        truth = np.zeros(shape, np.uint8)
        truth[high // 4 : high - high // 4, wide // 4 : wide - wide // 4] = index % classes
        found = np.roll(truth, max(1, wide // 16), 1)
        spots = draw.random(shape) < 0.05
        found[spots] = draw.integers(0, classes, int(spots.sum()))
        if ignored:
            truth[: high // 5, : wide // 5] = IGNORE
        pictures.append(np.full((*shape, 3), 90, np.uint8))
        truths.append(truth)
        founds.append(found)
    return pictures, truths, founds


def tallied(truths, founds, names):
    tally = Tally(names)
    for truth, found in zip(truths, founds, strict=True):
        tally.add(truth, found)
    return tally


@pytest.mark.parametrize("classes", [1, 2, 16, 17, 150])
def test_confusion(tmp_path, classes):
    _, truths, founds = scenes(classes=classes)
    metrics = tallied(truths, founds, [f"class {index}" for index in range(classes)]).metrics()
    path = tmp_path / "pictures" / "confusion.png"
    assert draw_mask_confusion(metrics, path) == path
    _, size = read(path)
    assert all(250 < side < 2400 for side in size)


def test_confusion_is_in_percent_of_the_true_class(tmp_path):
    rows = [{"class": name} for name in "ab"]

    def drawn(matrix):
        return draw_mask_confusion({"confusion": matrix, "per_class": rows}, tmp_path / "c.png").read_bytes()

    one = drawn([[90, 10], [0, 5]])
    assert drawn([[9_000_000, 1_000_000], [0, 70_000]]) == one
    assert drawn([[91, 9], [0, 5]]) != one
    assert drawn([[0, 0], [0, 0]]) != one  # only ignored pixels


def test_nothing_to_draw_removes_the_old_picture(tmp_path):
    path = tmp_path / "old.png"
    for draw in (
        lambda: draw_mask_confusion({}, path),
        lambda: draw_mask_confusion({"confusion_pairs": [[0, 0, 1]], "per_class": [{"class": "a"}]}, path),
        lambda: draw_worst_masks([], [], [], ["a"], path),
    ):
        path.write_bytes(b"old")
        assert draw() is None
        assert not path.exists()


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (3, 200), (200, 3), (60, 80), (1200, 900)])
@pytest.mark.parametrize("classes", [2, 40])
def test_images_of_all_sizes(tmp_path, shape, classes):
    pictures, truths, founds = scenes(2, classes, shape)
    names = ["background", *(f"class {index}" for index in range(1, classes))]
    _, (width, height) = read(draw_worst_masks(pictures, truths, founds, names, tmp_path / "worst.png"))
    assert 1000 < width < 1400
    assert 250 < height < 1800


def test_wrong_pixels_are_shown_and_ignored_ones_are_not(tmp_path):
    image = np.full((40, 40, 3), 90, np.uint8)
    truth = np.zeros((40, 40), np.uint8)
    found = truth.copy()
    found[:, 20:] = 1

    def drawn(truth):
        return near(read(draw_worst_masks([image], [truth], [found], ["a", "b"], tmp_path / "w.png"))[0], WRONG)

    half = drawn(truth)
    assert half > 40_000
    assert drawn(found) == 0
    truth[:, 30:] = IGNORE
    assert half * 0.45 < drawn(truth) < half * 0.55


def test_images_may_be_smaller_than_their_maps(tmp_path):
    _, truths, founds = scenes(2, shape=(240, 320))
    pictures = [np.full((60, 80, 3), 90, np.uint8)] * 2
    read(draw_worst_masks(pictures, truths, founds, list("abcd"), tmp_path / "worst.png"))
    assert pictures[0].min() == pictures[0].max() == 90


def test_names_of_all_kinds(tmp_path):
    pictures, truths, founds = scenes(6, 6)
    read(draw_worst_masks(pictures, truths, founds, NAMES, tmp_path / "worst.png", NAMES))
    draw_mask_confusion(tallied(truths, founds, NAMES).metrics(), tmp_path / "confusion.png")


def test_an_image_that_is_ignored_altogether(tmp_path):
    truth = np.full((20, 20), IGNORE, np.uint8)
    image = np.zeros((20, 20, 3), np.uint8)
    read(draw_worst_masks([image], [truth], [np.zeros_like(truth)], ["background", "a"], tmp_path / "worst.png"))


def test_maps_of_two_sizes_are_told(tmp_path):
    pictures, truths, _ = scenes(1)
    with pytest.raises(ValueError, match="one size"):
        draw_worst_masks(pictures, truths, [truths[0][1:]], list("abcd"), tmp_path / "worst.png")
    assert not (tmp_path / "worst.png").exists()


def test_curves_of_a_segmenter_are_loss_and_both_scores(tmp_path):
    def size(history):
        return read(draw_curves(history, tmp_path / "curves.png"))[1]

    wide, high = size(HISTORY)
    alone, same = size([{key: row[key] for key in ("epoch", "val_miou", "val_pixel_accuracy")} for row in HISTORY])
    assert wide > 1.9 * alone
    assert abs(high - same) < 20
    both = (tmp_path / "curves.png").read_bytes()
    size([{key: row[key] for key in ("epoch", "val_miou")} for row in HISTORY])
    assert (tmp_path / "curves.png").read_bytes() != both
