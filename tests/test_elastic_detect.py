"""One set of weights for several widths and resolutions of a detector: sliced, trained, extracted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exported import card_of, one_line
from mobilenets.architectures import NETWORKS, V1, head
from mobilenets.data.box_folder import load_boxes
from mobilenets.data.box_loader import padded
from mobilenets.models import keras
from mobilenets.models.detector import detector, raw_model
from mobilenets.models.elastic import Elastic, load_elastic, statistics_of, sub_network
from mobilenets.models.saving import load_model
from mobilenets.training import loop
from mobilenets.training.box_losses import loss_of
from mobilenets.training.dense import train_dense
from mobilenets.training.elastic import Sandwich
from mobilenets.training.settings import Settings
from once import once
from test_detect import folder
from test_elastic import pixels

SHORT = replace(V1, blocks=tuple(V1.blocks[index] for index in (0, 2, 4, 6, 12)))  # those that stride; sooner traced
MEMBERS = [(0.125, 64), (0.125, 96), (0.25, 64), (0.25, 96)]


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: np.array(keras.ops.convert_to_numpy(variable)) for variable in model.trainable_variables}


def cut(model: keras.Model, narrow: keras.Model) -> None:
    """Gives a narrower detector the first channels of the weights that a wider one's layers of the same names have."""
    wide = values(model)
    for variable in narrow.trainable_variables:
        variable.assign(wide[variable.path][tuple(slice(side) for side in variable.shape)])


def shaken(model: keras.Model) -> keras.Model:
    """Random statistics, which identities would hide."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("moving_mean", "beta", "bias"):
            weight.assign(rng.normal(0, 0.2, weight.shape))
        elif weight.name in ("moving_variance", "gamma"):
            weight.assign(rng.uniform(0.7, 1.5, weight.shape))
    return model


def objects(images: int) -> np.ndarray:
    """A box of nearly the whole image, and in every second image another one: (images, 8, 5)."""
    boxes = np.array([[0.02, 0.03, 0.97, 0.95, 0], [0.6, 0.5, 0.9, 0.8, 1]], np.float32)
    return padded([boxes[: 1 + index % 2] for index in range(images)])


@pytest.mark.backend
@pytest.mark.parametrize(("name", "maps"), [("ssdlite", (4, 3)), ("anchor_free", (4, 4))])
def test_a_slice_of_the_widest_is_the_narrower_detector(name, maps):
    keras.utils.set_random_seed(0)
    widest = shaken(detector(SHORT, head(name), (96, 96, 3), 2, 0.25))
    twin = shaken(detector(SHORT, head(name), (64, 64, 3), 2, 0.125))
    assert tuple(len(model.get_layer("detections").levels) for model in (widest, twin)) == maps
    cut(widest, twin)
    elastic = Elastic(widest, SHORT, 0.25, {(0.125, 64): statistics_of(twin)}, head(name))
    images = pixels(3, 64)
    expected = np.asarray(twin.predict_on_batch(images))
    assert expected[..., :4].std() > 0.01
    assert expected[..., 4:].std() > 1e-3
    sliced = elastic.at(0.125, 64 / 96)
    np.testing.assert_allclose(np.asarray(sliced.predict_on_batch(images)), expected, atol=1e-5)
    extracted = elastic.extract((0.125, 64))
    np.testing.assert_allclose(np.asarray(extracted.predict_on_batch(images)), expected, atol=1e-5)
    # Boxes are shares of the image, whatever its size.
    larger = np.asarray(sliced.predict_on_batch(pixels(3, 96)))
    assert larger.shape == expected.shape
    assert elastic.at(0.25, 1.0) is widest


@pytest.mark.long
@pytest.mark.backend
@pytest.mark.parametrize("name", ["ssdlite", "anchor_free"])
def test_training_a_slice_trains_those_weights_as_the_narrower_detector_would(name):
    keras.utils.set_random_seed(0)
    widest = detector(SHORT, head(name), (96, 96, 3), 2, 0.25)
    twin = detector(SHORT, head(name), (64, 64, 3), 2, 0.125)
    cut(widest, twin)
    before, images = values(widest), pixels(4, 64)
    sub = sub_network(raw_model(widest), 2, SHORT, 0.125, 64, logits=True, head=head(name))
    for model, loss in ((sub, loss_of(sub.own)), (raw_model(twin), loss_of(twin))):
        model.compile(keras.optimizers.SGD(0.05), loss=loss, jit_compile=keras.backend.backend() == "jax")
        model.train_on_batch(images, objects(4))
    after, expected = values(widest), values(twin)
    for path, old in before.items():
        inside = tuple(slice(side) for side in expected[path].shape) if path in expected else ()
        rest = np.ones(old.shape, bool)
        if path in expected:
            np.testing.assert_allclose(after[path][inside], expected[path], atol=1e-5)
            rest[inside] = False
        np.testing.assert_array_equal(after[path][rest], old[rest])
    assert max(np.abs(after[path] - old).max() for path, old in before.items()) > 1e-3


@pytest.mark.long
@pytest.mark.backend
def test_maps_that_smaller_sizes_lack_learn_from_the_largest_as_if_it_were_alone():
    keras.utils.set_random_seed(0)
    models = [detector(SHORT, head("ssdlite"), (96, 96, 3), 2, 0.25) for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    before, images, jit = values(models[0]), pixels(4, 96), keras.backend.backend() == "jax"
    # Of two networks Keras takes the mean of the gradients, so alone half the rate does the same.
    for model, rate, passes in zip(models, (0.1, 0.05), (2, None), strict=True):
        networks, optimizer = raw_model(model), keras.optimizers.SGD(rate, gradient_accumulation_steps=passes)
        networks.compile(optimizer, loss=loss_of(model), jit_compile=jit)
        optimizer.build(networks.trainable_variables)
        if passes:
            options = {"seed": 0, "passes": 2, "head": head("ssdlite"), "loss": loss_of}
            step = Sandwich(networks, SHORT, [(0.25, 64), (0.25, 96)], **options)
            step(images, objects(4), None, (0, 1))
        else:
            networks.train_on_batch(images, objects(4))
    both, alone = map(values, models)
    small = {variable.path for variable in detector(SHORT, head("ssdlite"), (64, 64, 3), 2, 0.25).trainable_variables}
    lacking = set(before) - small
    assert {path.split("/")[0] for path in lacking} >= {"extra2", "level3_boxes", "level3_scores"}
    for path in lacking:
        np.testing.assert_allclose(both[path], alone[path], atol=1e-6)
    assert max(np.abs(both[path] - before[path]).max() for path in lacking) > 1e-4
    assert max(np.abs(both[path] - alone[path]).max() for path in small) > 1e-4  # the smaller one has learned, too


# -- training -------------------------------------------------------------------------------------------------------


def shapes_in(place: Path) -> Path:
    return once(place / "shapes_of_elastic", lambda directory: folder(directory / "shapes")) / "shapes"


@pytest.fixture(scope="module")
def shapes(place) -> Path:
    return shapes_in(place)


@pytest.fixture
def _short(monkeypatch):
    """What ``v1`` then means."""
    monkeypatch.setitem(NETWORKS, "v1", SHORT)


@pytest.mark.long
def test_one_width_and_size_are_trained_as_ever(shapes, tmp_path):
    data, settings = load_boxes(shapes), Settings(epochs=1, batch_size=16, learning_rate=0.01)
    for name, of in (("plain", (0.125, 64)), ("lists", ([0.125], [64]))):
        card = train_dense(data, tmp_path / name, SHORT, head("anchor_free"), *of, settings, quiet=True)
        assert "elastic" not in card
        assert not (tmp_path / name / "elastic.npz").exists()
    one, other = (load_model(tmp_path / name).get_weights() for name in ("plain", "lists"))
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


WORDS = ("--task", "detect", "--head", "ssdlite", "--alpha", "0.125,0.25", "--size", "64,96", "--epochs", 8)
WORDS = (*WORDS, "--batch-size", 8, "--lr", 0.05)


def elastic_detector(place: Path) -> Path:
    """What ``mobilenets train`` makes of these words, but for the number of blocks."""

    def make(directory: Path) -> None:
        settings = Settings(epochs=8, batch_size=8, learning_rate=0.05)
        arguments = (SHORT, head("ssdlite"), [0.125, 0.25], [64, 96], settings)
        train_dense(load_boxes(shapes_in(place)), directory / "run", *arguments, quiet=True)

    return once(place / "elastic_detector", make) / "run"


@pytest.fixture(scope="module")
def elastic(place) -> Path:
    return elastic_detector(place)


@pytest.mark.long
def test_several_are_learned_at_once(elastic):
    card = card_of(elastic)
    rows = {(row["width_multiplier"], row["resolution"]): row for row in card["elastic"]["members"]}
    assert sorted(rows) == MEMBERS
    assert rows[0.125, 64]["macs"] < rows[0.125, 96]["macs"] < rows[0.25, 96]["macs"] == card["cost"]["macs"]
    assert rows[0.25, 96]["ap"] == pytest.approx(card["metrics"]["ap"], abs=1e-6)
    print({member: row["ap"] for member, row in rows.items()})
    assert min(row["ap"] for row in rows.values()) > 0.05
    page = (elastic / "report.html").read_text()
    assert "Every width and resolution" in page
    assert '<th scope="col">AP</th><th scope="col">64 px</th>' in page


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
    assert "AP (MACs)" in text
    whole, resumed = card_of(elastic), card_of(tmp_path / "run")
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["elastic"] == whole["elastic"]


@pytest.mark.long
@pytest.mark.usefixtures("_short")
def test_an_extracted_detector_is_an_ordinary_one(elastic, cli, tmp_path):
    out = tmp_path / "small"
    status, text, err = cli("extract", elastic, "--alpha", 0.125, "--size", 64, "--out", out, "--json")
    assert status == 0, err
    card = json.loads(text)
    assert (card["task"], card["head"], card["input_shape"]) == ("detect", "ssdlite", [64, 64, 3])
    known = {(row["width_multiplier"], row["resolution"]): row for row in card_of(elastic)["elastic"]["members"]}
    assert card["metrics"]["ap"] == pytest.approx(known[0.125, 64]["ap"], abs=1e-6)
    assert card["cost"]["macs"] == known[0.125, 64]["macs"]
    images = pixels(3, 64)
    sliced = load_elastic(elastic).at(0.125, 64 / 96)
    found = np.asarray(load_model(out).predict_on_batch(images))
    np.testing.assert_allclose(np.asarray(sliced.predict_on_batch(images)), found, atol=1e-5)
    assert json.loads(cli("evaluate", out, "--json")[1])["ap"] == pytest.approx(card["metrics"]["ap"], abs=1e-6)
    status, text, err = cli("extract", elastic, "--alpha", 0.2, "--size", 80, "--out", tmp_path / "between")
    assert status == 0, err
    assert "was not trained itself" in err
    assert "AP at IoU 0.5" in text
    one_line(cli("extract", out, "--out", tmp_path / "x"), "one width and one resolution")
    one_line(cli("extract", elastic, "--size", 32, "--out", tmp_path / "x"), "--size 32", "from 64 to 96 pixels")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ema",), "--ema is for one width"),
        (("--patience", 1), "--patience is for one width"),
        (("--size", "48,64"), "heads read other layers of images below 64 pixels"),
        (("--budget", "latency-ms=5", "--metric", "accuracy"), "of detectors one of ap, ap50, f1"),
        (("--teacher", "x"), "--teacher is for classifiers"),
    ],
)
def test_what_several_widths_of_a_detector_cannot_have_is_one_line(words, message, shapes, cli, tmp_path):
    one_line(cli("train", shapes, *WORDS, *words, "--out", tmp_path / "out"), message)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_what_takes_classifiers_alone_says_so(elastic):
    from mobilenets.errors import UserError
    from mobilenets.selection.deadline import DeadlinePredictor

    with pytest.raises(UserError, match="DeadlinePredictor takes classifiers"):
        DeadlinePredictor(elastic, deadline_ms=30)
