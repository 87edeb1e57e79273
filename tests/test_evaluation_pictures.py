"""Pictures are PNGs of a readable size, whatever the number and the names of the classes."""

import logging
import warnings

import matplotlib
import numpy as np
import pytest
from PIL import Image

from mobilenets.errors import UserError
from mobilenets.evaluation import draw_confusion, draw_curves, draw_mistakes, drawing, measure

HISTORY = [
    {"epoch": 1, "loss": 2.0, "accuracy": 0.3, "val_loss": 1.8, "val_accuracy": 0.4},
    {"epoch": 2, "loss": 0.5, "accuracy": 0.8, "val_loss": 0.9, "val_accuracy": 0.7},
    {"epoch": 3, "loss": 0.05, "accuracy": 0.9, "val_loss": 1.0, "val_accuracy": 0.6},
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
        return np.asarray(image.convert("RGB")), image.size


def case(classes, images=200):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, classes, images)
    probabilities = draw.dirichlet(np.full(classes, 0.3), images)
    return probabilities, labels


def test_curves(tmp_path):
    path = tmp_path / "pictures" / "curves.png"
    assert draw_curves(HISTORY, path) == path
    pixels, (width, height) = read(path)
    assert width > 2 * height
    assert pixels.std() > 5
    assert [each.name for each in path.parent.iterdir()] == ["curves.png"]


@pytest.mark.parametrize(
    "history",
    [
        [{key: str(value) for key, value in row.items()} for row in HISTORY],
        HISTORY[:1],
        [{"epoch": 1, "loss": 2.0, "val_loss": ""}, {"epoch": 2, "loss": "nan", "val_loss": None}],
        [{"loss": 1.0, "accuracy": 0.5}] * 3,
        [row | {"epoch": ""} for row in HISTORY],
        [{"epoch": epoch, "loss": 0.0, "val_loss": 0.0} for epoch in range(3)],
    ],
)
def test_curves_from_incomplete_histories(tmp_path, history):
    read(draw_curves(history, tmp_path / "curves.png"))


def test_nothing_to_draw_removes_the_old_picture(tmp_path):
    path = tmp_path / "old.png"
    for draw in (
        lambda: draw_curves([], path),
        lambda: draw_curves([{"epoch": 1, "loss": "nan"}], path),
        lambda: draw_confusion({}, path),
        lambda: draw_mistakes([], [], np.zeros((0, 2)), ["a", "b"], [], path),
    ):
        path.write_bytes(b"old")
        assert draw() is None
        assert not path.exists()
        assert draw() is None


@pytest.mark.parametrize("classes", [2, 10, 40, 120])
def test_confusion(tmp_path, classes):
    names = [f"a class with quite a long name {index}" for index in range(classes)]
    pixels, size = read(draw_confusion(measure(*case(classes), names), tmp_path / "confusion.png"))
    assert all(300 < side < 2400 for side in size)
    assert pixels.std() > 5


NAMES = [
    "$x_{1}$ 50% of \\alpha",
    "猫とねこ고양이",
    "line\nbreak\x07\udce9",
    "<script>",
    "x" * 300,
    "سلام",
    "🐈",
]


def test_names_of_every_kind(tmp_path):
    probabilities, labels = case(len(NAMES))
    draw_confusion(measure(probabilities, labels, NAMES), tmp_path / "confusion.png")
    images = np.zeros((200, 8, 8, 3), np.uint8)
    draw_mistakes(images, labels, probabilities, NAMES, range(7), tmp_path / "mistakes.png", NAMES)
    read(tmp_path / "confusion.png")
    read(tmp_path / "mistakes.png")


@pytest.mark.parametrize("count", [1, 6, 13])
def test_mistakes_take_a_dict_of_just_the_drawn_images(tmp_path, count):
    probabilities, labels = case(3)
    chosen = list(range(50, 50 + count))
    images = {index: np.full((20, 30, 3), index, np.uint8) for index in chosen}
    captions = {index: f"IMG_{index}.jpg" for index in chosen}
    path = draw_mistakes(images, labels, probabilities, list("abc"), chosen, tmp_path / "m.png", captions)
    pixels, _ = read(path)
    assert (pixels == 50).all(axis=2).sum() > 100 * 100  # the first picture is there, in its own colour


def test_drawing_leaves_no_trace(tmp_path, caplog):
    before = dict(matplotlib.rcParams)
    with caplog.at_level(logging.WARNING):
        draw_confusion(measure(*case(3), list("abc")), tmp_path / "a.png")
        draw_confusion(measure(*case(3), list("abc")), tmp_path / "b.png")
    assert dict(matplotlib.rcParams) == before
    assert not caplog.records
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_an_unusable_place_is_one_line(tmp_path):
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(UserError, match=r"curves\.png"):
        draw_curves(HISTORY, tmp_path / "curves.png")


def test_a_font_of_one_weight_alarms_nobody(caplog):
    from matplotlib.font_manager import FontProperties, findfont

    drawing.style()
    assert findfont(FontProperties(family="cmr10", weight="bold"))  # comes with matplotlib, without bold
    assert not caplog.records
