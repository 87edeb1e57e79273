"""One set of weights for several widths and resolutions: sliced, trained, extracted."""

import json
from dataclasses import replace

import numpy as np
import pytest

from exported import card_of, elastic_run, one_line, write_card
from mobilenets import options
from mobilenets.architectures import V1, network
from mobilenets.data.boxes import BoxData, BoxSplit
from mobilenets.data.loader import Batches
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.builder import classifier, logits_model
from mobilenets.models.elastic import Elastic, load_elastic, set_statistics, statistics_of, sub_network
from mobilenets.models.saving import load_model
from mobilenets.selection.further import further
from mobilenets.training.calibrated import calibrated
from mobilenets.training.classify import train
from mobilenets.training.kinds import Classifiers
from mobilenets.training.settings import Settings
from test_deployment_files import shaken
from test_training import TINY, Interrupted, striped_data

QUICK = Settings(epochs=2, batch_size=16, warmup_epochs=0.5)
MEMBERS = [(0.25, 12), (0.25, 16), (0.5, 12), (0.5, 16)]


def pixels(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), np.uint8)


def cut(model: keras.Model, narrow: keras.Model) -> None:
    """Gives a narrower model the first channels of a wider one's weights, by NumPy alone."""
    for variable, wide in zip(narrow.trainable_variables, model.trainable_variables, strict=True):
        whole = keras.ops.convert_to_numpy(wide)
        variable.assign(whole[tuple(slice(side) for side in variable.shape)])


def all_values(model: keras.Model) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.trainable_variables]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("v1", 32, marks=pytest.mark.backend),
        pytest.param("v2", 32, marks=pytest.mark.long),
        pytest.param("v3_small", 32, marks=pytest.mark.backend),
        pytest.param("v4_conv_small", 64, marks=pytest.mark.long),
    ],
)
def test_a_slice_of_the_widest_is_the_narrower_network(name, size):
    table = network(name)
    keras.utils.set_random_seed(0)
    widest = shaken(classifier(table, (size, size, 3), 5, 0.5))
    twin = shaken(classifier(table, (size, size, 3), 5, 0.25))
    cut(widest, twin)
    images, head = pixels(4, size), widest.get_layer("logits")
    logits = np.asarray(logits_model(twin).predict_on_batch(images)) - keras.ops.convert_to_numpy(head.bias)
    spread = logits.std(axis=0).max()  # or the softmax would hide differences
    head.kernel.assign(keras.ops.convert_to_numpy(head.kernel) / spread)
    head.bias.assign(-logits.mean(axis=0) / spread)
    cut(widest, twin)
    elastic = Elastic(widest, table, 0.5, {(0.25, size): statistics_of(twin)})
    expected = np.asarray(twin.predict_on_batch(images))
    assert np.abs(expected[0] - expected[1]).max() > 0.01  # the images are told apart
    sliced = np.asarray(elastic.at(0.25).predict_on_batch(images))
    np.testing.assert_allclose(sliced, expected, atol=1e-5)
    extracted = elastic.extract((0.25, size))
    np.testing.assert_allclose(np.asarray(extracted.predict_on_batch(images)), expected, atol=1e-5)
    # Not a copy: what the widest learns, the narrower network knows.
    head.bias.assign([1e6, 0, 0, 0, 0])
    assert (np.asarray(elastic.at(0.25).predict_on_batch(images)).argmax(axis=1) == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v3_large", "v4_conv_medium", "v4_hybrid_medium"])
def test_larger_networks_are_sliced_too(name):
    test_a_slice_of_the_widest_is_the_narrower_network(name, 64)


def test_at_resizes_images_as_the_resolution_multiplier_does():
    keras.utils.set_random_seed(0)
    widest = shaken(classifier(V1, (32, 32, 3), 5, 0.25))
    inside = shaken(classifier(V1, (32, 32, 3), 5, 0.25, resolution_multiplier=0.75))
    inside.set_weights(widest.get_weights())
    elastic = Elastic(widest, V1, 0.25, {(0.25, 24): statistics_of(widest)})
    images = pixels(4, 32)
    found = np.asarray(elastic.at(0.25, 0.75).predict_on_batch(images))
    np.testing.assert_allclose(found, np.asarray(inside.predict_on_batch(images)), atol=1e-5)
    assert elastic.at(0.25, 1.0) is widest
    with pytest.raises(UserError, match=r"not trained at alpha 0\.25 and 16 pixels; the nearest is alpha 0\.25 and 24"):
        elastic.at(0.25, 0.5)
    with pytest.raises(UserError, match="wider than the weights"):
        elastic.at(0.5)
    with pytest.raises(UserError, match="rho"):
        elastic.at(0.25, 1.5)


@pytest.mark.backend
def test_training_a_slice_trains_those_weights_as_the_narrower_network_would():
    table = replace(V1, blocks=V1.blocks[:3])
    keras.utils.set_random_seed(0)
    widest, twin = (classifier(table, (16, 16, 3), 3, alpha) for alpha in (0.5, 0.25))
    cut(widest, twin)
    images, wanted = pixels(8, 16), np.eye(3, dtype=np.float32)[np.arange(8) % 3]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    jit = keras.backend.backend() == "jax"
    before = all_values(widest)
    sub = sub_network(logits_model(widest), 3, table, 0.25, 16, logits=True)
    for model in (sub, logits_model(twin)):
        model.compile(keras.optimizers.SGD(0.1), loss=loss, jit_compile=jit)
        model.train_on_batch(images, wanted)
    after, expected = all_values(widest), all_values(twin)
    for old, new, narrow in zip(before, after, expected, strict=True):
        inside = tuple(slice(side) for side in narrow.shape)
        np.testing.assert_allclose(new[inside], narrow, atol=1e-5)
        rest = np.ones(old.shape, bool)
        rest[inside] = False
        np.testing.assert_array_equal(new[rest], old[rest])
    assert max(np.abs(new - old).max() for old, new in zip(before, after, strict=True)) > 1e-3


@pytest.fixture(scope="module")
def data():
    return striped_data()


@pytest.mark.backend
def test_statistics_are_those_of_images_as_they_are(data):
    made = Elastic(shaken(classifier(TINY, (16, 16, 3), 3, 0.5)), TINY, 0.5, {})
    model = calibrated(made, (0.25, 16), Classifiers(data), QUICK)
    stem = keras.Model(model.input, model.get_layer("stem").output)
    said = np.asarray(stem.predict_on_batch(data.train.images))
    mean = keras.ops.convert_to_numpy(model.get_layer("stem_bn").moving_mean)
    np.testing.assert_allclose(mean, said.mean(axis=(0, 1, 2)), atol=1e-5)


def test_what_is_extracted_learns_on_from_the_widest_and_that_from_labels(place, data):
    run, settings = elastic_run(place), Settings(epochs=20, batch_size=128)
    short = replace(settings, epochs=3, warmup_epochs=0.75)
    tuned, more = further(settings, data, run, (0.125, 16))
    assert (tuned.epochs, tuned.warmup_epochs, tuned.teaching, more) == (3, 0.75, 1.0, {"teacher": run})
    assert tuned.learning_rate == pytest.approx(0.1)  # a third
    assert further(replace(settings, learning_rate=0.6), data, run, (0.125, 16))[0].learning_rate == pytest.approx(0.2)
    assert further(settings, data, run, (0.125, 16), from_weights=True)[0].learning_rate == pytest.approx(0.03)
    assert further(settings, data, run, (0.25, 32)) == (replace(short, crop="none"), {})
    nothing = BoxSplit(np.zeros((0, 32, 32, 3), np.uint8), np.zeros((0, 2), np.int64), (), (), ())
    objects = BoxData("objects", "", "built-in", ("one",), nothing, nothing, 32, False, "")
    assert further(settings, objects, run, (0.125, 16)) == (short, {})


def test_small_images_are_shifted_no_longer_and_parts_of_large_ones_still_cut_out(place, data):
    run, settings = elastic_run(place), Settings(epochs=20, batch_size=128)
    assert further(settings, data, run, (0.125, 16))[0].crop == "none"
    assert further(settings, replace(data, native_size=None), run, (0.125, 16))[0].crop == "auto"
    assert further(replace(settings, crop="pad"), replace(data, native_size=None), run, (0.25, 32))[0].crop == "none"
    assert further(replace(settings, crop="resized"), data, run, (0.125, 16))[0].crop == "resized"


@pytest.mark.parametrize(("sizes", "shifted"), [([12, 16], [True] * 6 + [False]), ([16], [True] * 7)])
def test_several_networks_learn_last_from_images_that_are_not_shifted(data, tmp_path, monkeypatch, sizes, shifted):
    white = replace(data.train, images=np.full_like(data.train.images, 255))  # what comes in at the border is black
    seen, epoch = {}, Batches.epoch

    def watched(batches: Batches, number: int):
        for images, *rest in epoch(batches, number):
            seen[number] = seen.get(number, False) or bool((images == 0).any())
            yield images, *rest

    monkeypatch.setattr(Batches, "epoch", watched)
    settings = replace(QUICK, epochs=7)  # of which 15 % are one
    train(replace(data, train=white), tmp_path / "run", TINY, 0.25, sizes, settings, quiet=True)
    assert [seen[number] for number in range(7)] == shifted


@pytest.mark.backend
def test_one_width_and_resolution_are_trained_as_ever(data, tmp_path):
    plain = train(data, tmp_path / "plain", TINY, 0.25, 16, QUICK, quiet=True)
    lists = train(data, tmp_path / "lists", TINY, [0.25], [16], QUICK, quiet=True)
    assert "elastic" not in lists
    assert lists["metrics"] == plain["metrics"]
    for one, other in zip(*(load_model(tmp_path / name).get_weights() for name in ("plain", "lists")), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.long
@pytest.mark.parametrize("decay", [1.0, 1e-6])
def test_each_block_has_its_own_rate_at_several_widths_too(decay, data, tmp_path):
    settings = replace(QUICK, epochs=1, layer_decay=decay, weight_decay=0.0)
    keras.utils.set_random_seed(settings.seed)
    before = classifier(TINY, (16, 16, 3), 3, 0.5)
    train(data, tmp_path / "run", TINY, [0.25, 0.5], 16, settings, quiet=True)
    after = load_model(tmp_path / "run")
    stem, head = (
        np.abs(after.get_layer(name).get_weights()[0] - before.get_layer(name).get_weights()[0]).max()
        for name in ("stem", "logits")
    )
    assert head > 1e-3
    assert (stem > 1e-3) == (decay == 1)


@pytest.mark.long
@pytest.mark.backend
def test_several_are_learned_at_once_and_a_stopped_run_goes_on_as_if_it_had_not_been(data, tmp_path, monkeypatch):
    settings = Settings(epochs=4, batch_size=16, warmup_epochs=1)

    def run(out, **options):
        return train(data, tmp_path / out, TINY, [0.25, 0.5], [12, 16], settings, quiet=True, **options)

    whole = run("whole")
    rows = {(row["width_multiplier"], row["resolution"]): row for row in whole["elastic"]["members"]}
    assert sorted(rows) == MEMBERS
    assert rows[0.25, 12]["macs"] < rows[0.25, 16]["macs"] < rows[0.5, 16]["macs"] == whole["cost"]["macs"]
    assert rows[0.5, 16]["accuracy"] == pytest.approx(whole["metrics"]["accuracy"], abs=1e-6)
    assert min(row["accuracy"] for row in rows.values()) > 0.6  # a third is chance
    with monkeypatch.context() as patch:
        patch.setattr("mobilenets.training.classify.Reporter", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    resumed = run("parts", resume=True)
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["elastic"] == whole["elastic"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (replace(QUICK, ema=True), "--ema is for one width"),
        (replace(QUICK, patience=1), "--patience is for one width"),
    ],
)
def test_what_several_widths_cannot_have_is_said(settings, words, data, tmp_path):
    with pytest.raises(UserError, match=words):
        train(data, tmp_path / "out", TINY, [0.25, 0.5], 16, settings, quiet=True)
    assert not (tmp_path / "out").exists()


def test_networks_without_pooling_and_pruned_ones_are_refused(data, tmp_path):
    with pytest.raises(UserError, match="VGG16.*fit one resolution"):
        train(data, tmp_path / "out", network("vgg16"), [0.25, 0.5], 32, QUICK, quiet=True)
    pruned = replace(TINY, channels=(("block1_pointwise", 8),))
    with pytest.raises(UserError, match="pruned"):
        train(data, tmp_path / "out", pruned, [0.25, 0.5], 16, QUICK, quiet=True)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("0.5", float, [0.5]),
        ("1,0.25", float, [1.0, 0.25]),
        ("0.25..1.0", float, [0.25, 0.5, 0.75, 1.0]),
        ("0.25..1", float, [0.25, 0.5, 0.75, 1.0]),
        ("0.125..0.5", float, [0.125, 0.25, 0.375, 0.5]),
        ("96..224", int, [96, 128, 160, 192, 224]),
        ("16..28", int, [16, 20, 24, 28]),
        ("97..130", int, [97, 108, 119, 130]),
        ("0.3..1", float, [0.3, 0.533, 0.767, 1.0]),
        ("16..17", int, [16, 17]),
    ],
)
def test_lists_and_ranges(text, kind, expected):
    assert options.several(text, "--alpha", kind) == expected


@pytest.mark.parametrize("text", ["", "a", "1..", "..1", "2..1", "1..1", "0.5..inf", "0.5..nan", "0.25..1e308", "0..1"])
def test_what_is_no_list_or_range_is_one_line(text):
    with pytest.raises(UserError, match="--alpha"):
        options.several(text, "--alpha", float)


@pytest.fixture(scope="module")
def elastic(place):
    """What ``mobilenets train digits --alpha 0.125,0.25 --size 16,32`` makes in three epochs."""
    return elastic_run(place)


@pytest.mark.long
def test_an_extracted_network_is_an_ordinary_model(elastic, cli, tmp_path):
    out = tmp_path / "half"
    status, text, err = cli("extract", elastic, "--alpha", 0.125, "--size", 32, "--out", out, "--json")
    assert status == 0, err
    card = json.loads(text)
    assert (card["width_multiplier"], card["input_shape"]) == (0.125, [32, 32, 3])
    known = {(row["width_multiplier"], row["resolution"]): row for row in card_of(elastic)["elastic"]["members"]}
    assert card["metrics"]["accuracy"] == pytest.approx(known[0.125, 32]["accuracy"], abs=1e-6)
    assert card["cost"]["macs"] == known[0.125, 32]["macs"]
    images = pixels(4, 32)
    found = np.asarray(load_model(out).predict_on_batch(images))
    sliced = load_elastic(elastic).at(0.125, 1.0)
    np.testing.assert_allclose(np.asarray(sliced.predict_on_batch(images)), found, atol=1e-5)
    assert json.loads(cli("evaluate", out, "--json")[1]) == card["metrics"]
    status, _, err = cli("train", "digits", "--alpha", 0.125, "--size", 32, "--weights", out, "--epochs", 1, "--out",
                         tmp_path / "tuned")  # fmt: skip
    assert status == 0, err
    one_line(cli("extract", elastic, "--out", out), "already holds a model", "--overwrite")
    mine = tmp_path / "mine"
    (mine / "pictures").mkdir(parents=True)
    (mine / "pictures" / "cat.jpg").write_bytes(b"mine")
    assert cli("extract", elastic, "--out", mine)[0] == 0
    assert (mine / "pictures" / "cat.jpg").read_bytes() == b"mine"
    one_line(cli("extract", out, "--out", tmp_path / "other"), "one width and one resolution", "--alpha 0.25..1")


def test_a_width_between_those_trained_gets_statistics_of_its_own(elastic, cli, tmp_path):
    status, text, err = cli("extract", elastic, "--alpha", 0.2, "--size", 28, "--out", tmp_path / "between", "--json")
    assert status == 0
    assert "was not trained itself" in err
    assert json.loads(text)["width_multiplier"] == 0.2
    one_line(cli("extract", elastic, "--alpha", 0.5, "--out", tmp_path / "x"), "--alpha 0.5", "from 0.125 to 0.25")
    one_line(cli("extract", elastic, "--size", 8, "--out", tmp_path / "x"), "--size 8", "from 16 to 32 pixels")
    one_line(cli("extract", elastic, "--out", elastic), "would be replaced")
    assert not (tmp_path / "x").exists()


def test_what_is_damaged_is_told(elastic, cli, tmp_path):
    import shutil

    spoiled = tmp_path / "spoiled"
    shutil.copytree(elastic, spoiled)
    words = ("extract", spoiled, "--alpha", 0.125, "--out", tmp_path / "out")
    whole = (spoiled / "elastic.npz").read_bytes()
    (spoiled / "elastic.npz").write_bytes(whole[: len(whole) // 2])
    one_line(cli(*words), "elastic.npz", "damaged")
    np.savez(spoiled / "elastic.npz", **{"0.125@32/0": np.zeros(3)})
    one_line(cli(*words), "elastic.npz", "damaged")
    (spoiled / "elastic.npz").unlink()
    one_line(cli(*words), "elastic.npz", "is missing")
    write_card(spoiled, card_of(spoiled) | {"elastic": {"members": [1]}})
    one_line(cli(*words), "card.json", "damaged")
    assert not (tmp_path / "out").exists()


def test_statistics_of_another_shape_are_refused():
    model = classifier(V1, (16, 16, 3), 3, 0.25)
    with pytest.raises(UserError, match="damaged"):
        set_statistics(model, [np.zeros(2)])
