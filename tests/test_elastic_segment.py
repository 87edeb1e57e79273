"""One set of weights for several widths and resolutions of a segmenter: sliced, trained, extracted."""

import json
from pathlib import Path

import numpy as np
import pytest

from exported import card_of, one_line
from mobilenets.architectures import NETWORKS, SEGMENTATION_HEADS, network, segmentation_head
from mobilenets.data.mask_augment import nearest
from mobilenets.data.mask_folder import load_masks
from mobilenets.data.masks import IGNORE
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.elastic import Elastic, load_elastic, statistics_of, sub_network
from mobilenets.models.saving import load_model
from mobilenets.models.segmenter import scores_model, segmenter
from mobilenets.training import loop
from mobilenets.training.dense import train_dense
from mobilenets.training.elastic import Sandwich
from mobilenets.training.fit_masks import masks_at_size
from mobilenets.training.mask_losses import loss_of
from mobilenets.training.settings import Settings
from once import once
from test_elastic import pixels
from test_elastic_detect import SHORT, cut, shaken, values
from test_segment import folder

MEMBERS = [(0.125, 64), (0.125, 96), (0.25, 64), (0.25, 96)]
LRASPP = segmentation_head("lraspp")
JIT = keras.backend.backend() == "jax"


def masks(images: int, size: int) -> np.ndarray:
    """Two classes, one above the other, and a column that nobody is asked for: uint8 (images, size, size)."""
    found = np.zeros((images, size, size), np.uint8)
    for index, mask in enumerate(found):
        mask[size * (2 + index) // 8 :] = 1
    found[:, :, -size // 8 :] = IGNORE
    return found


@pytest.mark.parametrize(
    ("table", "head"),
    [
        pytest.param(SHORT, "lraspp", marks=pytest.mark.backend),
        pytest.param(SHORT, "deeplabv3_plus", marks=pytest.mark.backend),
        *((SHORT, name) for name in ("lraspp_wide", "deeplabv3")),
        (network("v3_small"), "lraspp"),
        *(pytest.param(network("v3_small"), name, marks=pytest.mark.long) for name in list(SEGMENTATION_HEADS)[1:]),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_slice_of_the_widest_is_the_narrower_segmenter(table, head):
    keras.utils.set_random_seed(0)
    head = segmentation_head(head)
    widest = shaken(segmenter(table, head, (96, 96, 3), 3, 0.25))
    twin = shaken(segmenter(table, head, (64, 64, 3), 3, 0.125))
    cut(widest, twin)
    elastic = Elastic(widest, table, 0.25, {(0.125, 64): statistics_of(twin)}, head)
    images = pixels(2, 64)
    expected = np.asarray(twin.predict_on_batch(images))
    assert expected.shape == (2, 64, 64, 3)
    assert expected.std(axis=(0, 1, 2)).max() > 1e-3  # places are told apart
    sliced = elastic.at(0.125, 64 / 96)
    np.testing.assert_allclose(np.asarray(sliced.predict_on_batch(images)), expected, atol=1e-5)
    extracted = elastic.extract((0.125, 64))
    np.testing.assert_allclose(np.asarray(extracted.predict_on_batch(images)), expected, atol=1e-5)
    assert np.asarray(sliced.predict_on_batch(pixels(2, 96))).shape == expected.shape  # it resizes larger images
    assert elastic.at(0.25, 1.0) is widest


@pytest.mark.backend
@pytest.mark.parametrize("name", ["lraspp", "deeplabv3_plus"])
def test_training_a_slice_trains_those_weights_as_the_narrower_segmenter_would(name):
    keras.utils.set_random_seed(0)
    head = segmentation_head(name)
    widest = segmenter(SHORT, head, (96, 96, 3), 2, 0.25)
    twin = segmenter(SHORT, head, (64, 64, 3), 2, 0.125)
    cut(widest, twin)
    before, images = values(widest), pixels(4, 64)
    sub = sub_network(scores_model(widest), 2, SHORT, 0.125, 64, logits=True, head=head)
    for model in (sub, scores_model(twin)):
        model.compile(keras.optimizers.SGD(0.05), loss=loss_of(2, dice=0.3), jit_compile=JIT)
        model.train_on_batch(images, masks(4, 64))
    after, expected = values(widest), values(twin)
    assert set(before) == set(expected)
    for path, old in before.items():
        inside = tuple(slice(side) for side in expected[path].shape)
        np.testing.assert_allclose(after[path][inside], expected[path], atol=1e-5)
        rest = np.ones(old.shape, bool)
        rest[inside] = False
        np.testing.assert_array_equal(after[path][rest], old[rest])
    assert max(np.abs(after[path] - old).max() for path, old in before.items()) > 1e-3


@pytest.mark.long
@pytest.mark.backend
def test_a_step_is_the_sum_of_what_the_masks_teach_each_network_at_its_own_size():
    keras.utils.set_random_seed(0)
    both, large, small = (segmenter(SHORT, LRASPP, (size, size, 3), 2, 0.25) for size in (96, 96, 64))
    for model in (large, small):
        model.set_weights(both.get_weights())
    before, images, told = values(both), pixels(4, 64).repeat(2, axis=1).repeat(2, axis=2)[:, :96, :96], masks(4, 96)
    loss = loss_of(2)
    # Of two networks Keras takes the mean of the gradients, so that each alone learns half as fast.
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    networks = scores_model(both)
    networks.compile(optimizer, loss=loss, jit_compile=JIT)
    optimizer.build(networks.trainable_variables)
    members = [(0.25, 64), (0.25, 96)]
    options = {"head": LRASPP, "loss": lambda _: loss, "told_at": masks_at_size}
    Sandwich(networks, SHORT, members, seed=0, passes=2, **options)(images, told, None, (0, 1))
    from mobilenets.data.resizing import resize

    shown = {96: (images, told)}
    shown[64] = (
        np.stack([resize(image, 64, 64) for image in images]),
        np.stack([nearest(mask, 64, 64) for mask in told]),
    )
    for model in (large, small):
        alone = scores_model(model)
        alone.compile(keras.optimizers.SGD(0.05), loss=loss, jit_compile=JIT)
        alone.train_on_batch(*shown[model.input_shape[1]])
    after, *parts = map(values, (both, large, small))
    for path, old in before.items():
        wanted = sum(part[path] - old for part in parts)
        np.testing.assert_allclose(after[path] - old, wanted, atol=2e-6)
    assert max(np.abs(parts[1][path] - old).max() for path, old in before.items()) > 1e-3


# -- training -------------------------------------------------------------------------------------------------------


def shapes_in(place: Path) -> Path:
    return once(place / "shapes_of_elastic_masks", lambda directory: folder(directory / "shapes")) / "shapes"


@pytest.fixture(scope="module")
def shapes(place) -> Path:
    return shapes_in(place)


@pytest.fixture
def _short(monkeypatch):
    """What ``v1`` then means."""
    monkeypatch.setitem(NETWORKS, "v1", SHORT)


WORDS = ("--task", "segment", "--alpha", "0.125,0.25", "--size", "64,96", "--epochs", 10)
WORDS = (*WORDS, "--batch-size", 8, "--lr", 0.1)


def elastic_segmenter(place: Path) -> Path:
    """What ``mobilenets train`` makes of these words, but for the number of blocks."""

    def make(directory: Path) -> None:
        settings = Settings(epochs=10, batch_size=8, learning_rate=0.1)
        arguments = (SHORT, LRASPP, [0.125, 0.25], [64, 96], settings)
        train_dense(load_masks(shapes_in(place)), directory / "run", *arguments, quiet=True)

    return once(place / "elastic_segmenter", make) / "run"


@pytest.fixture(scope="module")
def elastic(place) -> Path:
    return elastic_segmenter(place)


@pytest.mark.long
def test_several_are_learned_at_once(elastic):
    card = card_of(elastic)
    rows = {(row["width_multiplier"], row["resolution"]): row for row in card["elastic"]["members"]}
    assert sorted(rows) == MEMBERS
    assert rows[0.125, 64]["macs"] < rows[0.125, 96]["macs"] < rows[0.25, 96]["macs"] == card["cost"]["macs"]
    assert rows[0.25, 96]["miou"] == pytest.approx(card["metrics"]["miou"], abs=1e-6)
    print({member: row["miou"] for member, row in rows.items()})
    assert min(row["miou"] for row in rows.values()) > 0.5
    page = (elastic / "report.html").read_text()
    assert "Every width and resolution" in page
    assert '<th scope="col">mIoU</th><th scope="col">64 px</th>' in page


@pytest.mark.long
@pytest.mark.usefixtures("_short")
def test_a_stopped_run_goes_on_as_if_it_had_not_been(elastic, shapes, cli, tmp_path, monkeypatch):
    def stopping(path, history, keep=loop.logs.write_history):
        keep(path, history)
        if len(history) == 5:
            raise KeyboardInterrupt

    words = ("train", shapes, *WORDS, "--out", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop.logs, "write_history", stopping)
        assert cli(*words)[0] == 130
    status, text, err = cli(*words, "--resume")
    assert status == 0, err
    assert "mIoU (MACs)" in text
    whole, resumed = card_of(elastic), card_of(tmp_path / "run")
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["elastic"] == whole["elastic"]


@pytest.mark.long
@pytest.mark.usefixtures("_short")
def test_an_extracted_segmenter_is_an_ordinary_one(elastic, cli, tmp_path):
    out = tmp_path / "small"
    status, text, err = cli("extract", elastic, "--alpha", 0.125, "--size", 64, "--out", out, "--json")
    assert status == 0, err
    card = json.loads(text)
    assert (card["task"], card["head"], card["output_stride"], card["fast"]) == ("segment", "lraspp", 16, False)
    assert card["input_shape"] == [64, 64, 3]
    known = {(row["width_multiplier"], row["resolution"]): row for row in card_of(elastic)["elastic"]["members"]}
    assert card["metrics"]["miou"] == pytest.approx(known[0.125, 64]["miou"], abs=1e-6)
    assert card["cost"]["macs"] == known[0.125, 64]["macs"]
    images = pixels(3, 64)
    sliced = load_elastic(elastic).at(0.125, 64 / 96)
    found = np.asarray(load_model(out).predict_on_batch(images))
    np.testing.assert_allclose(np.asarray(sliced.predict_on_batch(images)), found, atol=1e-5)
    assert json.loads(cli("evaluate", out, "--json")[1])["miou"] == pytest.approx(card["metrics"]["miou"], abs=1e-6)
    status, text, err = cli("extract", elastic, "--alpha", 0.2, "--size", 80, "--out", tmp_path / "between")
    assert status == 0, err
    assert "was not trained itself" in err
    between = card_of(tmp_path / "between")
    assert between["metrics"]["miou"] > 0.4
    one_line(cli("extract", out, "--out", tmp_path / "x"), "one width and one resolution")
    one_line(cli("extract", elastic, "--size", 32, "--out", tmp_path / "x"), "--size 32", "from 64 to 96 pixels")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ema",), "--ema is for one width"),
        (("--patience", 1), "--patience is for one width"),
        (("--size", "48,64"), "heads read other layers of images below 64 pixels"),
        (("--budget", "latency-ms=5", "--metric", "ap"), "of segmenters one of miou, f1, pixel_accuracy"),
        (("--teacher", "x"), "--teacher is for classifiers"),
    ],
)
def test_what_several_widths_of_a_segmenter_cannot_have_is_one_line(words, message, shapes, cli, tmp_path):
    one_line(cli("train", shapes, *WORDS, *words, "--out", tmp_path / "out"), message)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_what_takes_classifiers_alone_says_so(elastic):
    from mobilenets.selection.deadline import DeadlinePredictor

    with pytest.raises(UserError, match="DeadlinePredictor takes classifiers"):
        DeadlinePredictor(elastic, deadline_ms=30)
