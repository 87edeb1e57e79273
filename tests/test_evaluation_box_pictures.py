"""Pictures of detectors: PNGs of a readable size, in the right colours, whatever the boxes and the names."""

import sys
import warnings

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageColor

from mobilenets.data.box_drawing import MOST_NAMED, PALETTE
from mobilenets.data.boxes import BoxSplit
from mobilenets.errors import UserError
from mobilenets.evaluation.box_pictures import FALSE, MISSED, RIGHT, annotate, draw_box_confusion, draw_pr, draw_worst
from mobilenets.evaluation.detection import measure_boxes

NO_BOXES = np.zeros((0, 6), np.float32)
NAMES = ["$x_{1}$ 50% of \\alpha", "猫とねこ고양이", "line\nbreak\x07\udce9", "x" * 300, "سلام", "🐈"]


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
    """How many pixels have a colour such as "#0072b2"."""
    return int((abs(pixels - ImageColor.getrgb(colour)).max(axis=-1) <= slack).sum())


def scenes(images=16, classes=4, seed=0):
    """Images of 100 x 80 with up to 4 objects; most are found, some as another class, and some boxes are false."""
    draw = np.random.default_rng(seed)
    truth, labels, found = [], [], []
    for _ in range(images):
        count = draw.integers(0, 5)
        corners = np.column_stack([draw.uniform(0, 60, count), draw.uniform(0, 40, count)])
        truth.append(np.hstack([corners, corners + draw.uniform(15, 40, (count, 2))]).astype(np.float32))
        labels.append(draw.integers(0, classes, count))
        guesses = np.where(draw.random(count) < 0.8, labels[-1], draw.integers(0, classes, count))
        seen = draw.random(count) < 0.8
        rows = np.column_stack([truth[-1] + draw.normal(0, 1, (count, 4)), draw.beta(5, 2, count), guesses])[seen]
        false = [[5, 5, 25, 25, draw.random() / 2, draw.integers(0, classes)]] if draw.random() < 0.4 else NO_BOXES
        found.append(np.vstack([rows, false]).astype(np.float32))
    nobody = tuple(np.zeros(len(each), bool) for each in labels)
    split = BoxSplit(
        np.full((images, 80, 100, 3), 90, np.uint8),
        np.tile([100, 80], (images, 1)),
        tuple(truth),
        tuple(labels),
        nobody,
    )
    return found, split


def one(corners, labels, sizes=((100, 80),), ignored=None):
    """A split of one image with some objects."""
    boxes = np.array(corners, np.float32).reshape(-1, 4)
    ignored = np.zeros(len(boxes), bool) if ignored is None else np.array(ignored, bool)
    return BoxSplit(np.zeros((1, 1, 1, 3), np.uint8), np.array(sizes), (boxes,), (np.array(labels, int),), (ignored,))


@pytest.mark.parametrize("classes", [1, 4, 20, 30])
def test_precision_and_recall(tmp_path, classes):
    found, split = scenes(classes=classes)
    path = tmp_path / "pictures" / "pr.png"
    metrics = measure_boxes(found, split, [f"class with a name {index}" for index in range(classes)])
    assert draw_pr(metrics, path) == path
    pixels, (width, height) = read(path)
    assert 700 < width < 2000
    assert 400 < height < 1200
    # Each class has its own curve, unless there are too many, or one.
    assert (near(pixels, "#e69f00") > 50) == (classes in (4, 20))
    assert [each.name for each in path.parent.iterdir()] == ["pr.png"]


def test_curves_of_detectors_that_find_nothing_or_everything(tmp_path):
    split = one([(10, 10, 40, 40)], [0])
    for found in (NO_BOXES, np.array([[10, 10, 40, 40, 1, 0]], np.float32)):
        read(draw_pr(measure_boxes([found], split, ["a", "without objects"]), tmp_path / "pr.png"))


@pytest.mark.parametrize("classes", [1, 60])
def test_confusion_has_the_background(tmp_path, classes):
    found, split = scenes(classes=classes)
    metrics = measure_boxes(found, split, [str(index) for index in range(classes)])
    _, size = read(draw_box_confusion(metrics, tmp_path / "confusion.png"))
    assert all(300 < side < 2400 for side in size)


def test_nothing_to_draw_removes_the_old_picture(tmp_path):
    path = tmp_path / "old.png"
    split = one([(10, 10, 40, 40)], [0])
    for draw in (
        lambda: draw_pr({}, path),
        lambda: draw_box_confusion({"confusion_pairs": [[0, 0, 1]], "per_class": [{"class": "a"}]}, path),
        lambda: draw_worst([], [], split.chosen(np.array([], int)), ["a"], 0.5, path),
    ):
        path.write_bytes(b"old")
        assert draw() is None
        assert not path.exists()


def test_worst_images_show_what_is_right_false_and_missed(tmp_path):
    image = np.full((80, 100, 3), 90, np.uint8)
    split = one([(5, 5, 45, 35), (55, 45, 95, 75)], [0, 1])

    def drawn(found, threshold=0.5):
        path = draw_worst([image], [np.array(found, np.float32).reshape(-1, 6)], split, ["a", "b"], threshold, path_)
        pixels, _ = read(path)
        return [near(pixels[80:], colour) for colour in (RIGHT, FALSE, MISSED)]  # below the legend

    path_ = tmp_path / "worst.png"
    both = [(5, 5, 45, 35, 0.9, 0), (55, 45, 95, 75, 0.8, 1)]
    right, false, missed = drawn(both)
    assert right > 500
    assert false == missed == 0
    right, false, missed = drawn([])
    assert right == false == 0
    assert missed > 500
    right, false, missed = drawn([both[0], (*both[1][:5], 0)])  # a wrong class: false and missed
    assert min(right, false, missed) > 300
    right, false, missed = drawn([*both, (60, 5, 90, 30, 0.4, 0)])  # below the threshold
    assert false == 0
    right, false, missed = drawn([*both, (60, 5, 90, 30, 0.4, 0)], threshold=0.3)
    assert false > 300


def test_ignored_objects_are_neither_missed_nor_found(tmp_path):
    split = one([(5, 5, 45, 35)], [0], ignored=[True])
    image = np.full((80, 100, 3), 90, np.uint8)
    for found in (NO_BOXES, np.array([[5, 5, 40, 35, 0.9, 0]], np.float32)):
        pixels, _ = read(draw_worst([image], [found], split, ["a"], 0.5, tmp_path / "worst.png"))
        assert [near(pixels[80:], colour) for colour in (RIGHT, FALSE, MISSED)] == [0, 0, 0]


@pytest.mark.parametrize("count", [1, 5])
def test_worst_images_may_have_any_size(tmp_path, count):
    found, split = scenes(images=count, classes=len(NAMES))
    sizes = [(80, 100), (40, 50), (240, 300)]  # the boxes are by the sizes of the split
    images = [np.full((*sizes[index % 3], 3), 90, np.uint8) for index in range(count)]
    path = draw_worst(images, found, split, NAMES, 0.3, tmp_path / "worst.png", [f"{i}.jpg" for i in range(count)])
    _, size = read(path)
    assert all(250 < side < 2000 for side in size)


@pytest.mark.parametrize("size", [(16, 16), (1000, 8), (8, 1000), (1, 1)])
def test_worst_images_of_odd_shapes(tmp_path, size):
    split = one([(0, 0, size[0] / 2, size[1] / 2)], [0], sizes=[size])
    found = np.array([[0, 0, size[0], size[1], 0.9, 0]], np.float32)
    image = np.zeros((size[1], size[0], 3), np.uint8)
    _, drawn = read(draw_worst([image], [found], split, ["a"], 0.5, tmp_path / "worst.png"))
    assert all(100 < side < 2000 for side in drawn)


def test_drawing_leaves_no_trace(tmp_path):
    before = dict(matplotlib.rcParams)
    found, split = scenes(images=3)
    for name in ("a.png", "b.png"):
        draw_worst(split.images, found, split, list("abcd"), 0.3, tmp_path / name)
    assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_an_unusable_place_is_one_line(tmp_path):
    (tmp_path / "pr.png").mkdir()
    found, split = scenes(images=3)
    with pytest.raises(UserError, match=r"pr\.png"):
        draw_pr(measure_boxes(found, split, list("abcd")), tmp_path / "pr.png")


def test_annotated_boxes_have_the_colours_of_their_classes():
    draw = np.random.default_rng(0)
    image = draw.integers(0, 60, (300, 400, 3)).astype(np.uint8)
    before = image.copy()
    found = np.array([[50, 100, 150, 200, 0.9, 0], [250, 100, 350, 200, 0.8, 3]], np.float32)
    result = annotate(image, found, list("abcd"))
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    # Red, green and blue where they belong: the first is blue, the other red.
    np.testing.assert_array_equal(result[199, 100], ImageColor.getrgb(PALETTE[0]))
    np.testing.assert_array_equal(result[199, 300], ImageColor.getrgb(PALETTE[3]))
    np.testing.assert_array_equal(result[110:190, 60:140], image[110:190, 60:140])  # inside of a box
    np.testing.assert_array_equal(result[210:], image[210:])
    assert near(result[:100, 50:150].astype(int), PALETTE[0]) > 200  # the name above
    assert near(result[:100, 250:350].astype(int), PALETTE[3]) > 200


def test_the_edge_of_a_box_as_large_as_the_image_is_seen():
    result = annotate(np.zeros((60, 90, 3), np.uint8), np.array([[0, 0, 90, 60, 0.9, 0]], np.float32), ["a"])
    for edge in (result[-1], result[:, -1], result[40:, 0]):
        assert near(edge.astype(int), PALETTE[0]) == len(edge)


def test_lines_run_within_their_boxes():
    result = annotate(np.zeros((60, 90, 3), np.uint8), np.array([[30, 40, 50, 55, 0.9, 0]], np.float32), ["a"])
    rows, columns = np.nonzero(result[45:].any(axis=2))  # below the name
    assert (columns.min(), columns.max(), rows.max()) == (30, 49, 9)


def test_without_boxes_it_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    result = annotate(image, NO_BOXES, ["a"])
    np.testing.assert_array_equal(result, image)
    result[:] = 0  # a copy
    assert image.any()


@pytest.mark.parametrize("shape", [(16, 16), (50, 10000), (10000, 50), (1, 1), (33, 33)])
def test_annotates_images_of_any_shape(shape):
    found = np.array([[-5, -5, 8, 8, 1.0, 0], [2, 2, 40, 30, 0.5, 1], [9000, 0, 9100, 50, 0.5, 1]], np.float32)
    result = annotate(np.zeros((*shape, 3), np.uint8), found, ["a", "b" * 100])
    assert result.shape == (*shape, 3)
    assert result.any()


def test_annotates_names_of_every_kind():
    boxes = [[20 + 100 * index, 60, 100 + 100 * index, 200, 0.5, index] for index in range(len(NAMES))]
    image = np.zeros((300, 640, 3), np.uint8)
    result = annotate(image, np.array(boxes, np.float32), NAMES)
    for index in range(len(NAMES)):
        assert near(result.astype(int), PALETTE[index]) > 400


def test_lines_and_letters_grow_with_the_image():
    def lines(side):
        found = np.array([[side / 4, side / 2, side * 3 / 4, side * 0.9, 0.5, 0]], np.float32)
        result = annotate(np.zeros((side, side, 3), np.uint8), found, ["a"])
        return near(result[side * 3 // 4 :, side // 2].astype(int), PALETTE[0])

    assert 1 <= lines(64) < lines(640) < lines(2500) < 12


def test_of_many_boxes_the_surest_are_named():
    found = np.array([[10, 40 * index + 60, 50, 40 * index + 65, 0.3, 0] for index in range(40)], np.float32)
    found[::2, 4] = 0.9
    result = annotate(np.zeros((1700, 300, 3), np.uint8), found, ["name of a class"]).astype(int)
    named = [near(result[40 * index + 40 : 40 * index + 55, 60:], PALETTE[0]) > 50 for index in range(40)]
    assert all(named[::2])
    assert sum(named) == MOST_NAMED


def test_says_how_to_install_what_is_missing(monkeypatch, tmp_path):
    found = np.array([[5, 5, 20, 20, 0.9, 0]], np.float32)
    image = np.zeros((80, 100, 3), np.uint8)
    split = one([(5, 5, 20, 20)], [0])
    for name in ("supervision", "pycocotools.cocoeval"):
        monkeypatch.setitem(sys.modules, name, None)
    for draw in (
        lambda: annotate(image, found, ["a"]),
        lambda: draw_worst([image], [found], split, ["a"], 0.5, tmp_path / "worst.png"),
    ):
        with pytest.raises(UserError, match=r"pip install 'mobilenets\[detect\]'"):
            draw()
