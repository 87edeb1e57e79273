"""Starting from weights: published ones, only the head, features once, a rate for every block."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mobilenets import architectures
from mobilenets.architectures import HEADS, SEGMENTATION_HEADS, V1
from mobilenets.data import ImageData, Split
from mobilenets.errors import UserError
from mobilenets.models import keras, published
from mobilenets.models.builder import classifier
from mobilenets.models.checkpoints import tensors_of
from mobilenets.models.saving import load_model, save_model
from mobilenets.models.tasks import built, in_head
from mobilenets.models.weights import as_trained, start_from
from mobilenets.training.classify import train
from mobilenets.training.optimizer import layer_rates, make_optimizer
from mobilenets.training.settings import Settings

TINY = replace(V1, blocks=V1.blocks[:3])


@pytest.fixture(scope="module")
def data() -> ImageData:
    """Three colours, on noise."""

    def split(count: int, seed: int) -> Split:
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 3
        images = rng.integers(0, 120, (count, 16, 16, 3))
        images[np.arange(count), :, :, labels] += 100
        return Split(images.astype(np.uint8), labels)

    return ImageData(
        name="colours",
        source="colours",
        classes=("red", "green", "blue"),
        train=split(90, 0),
        val=split(30, 1),
        native_size=16,
        flip=True,
        fingerprint="0" * 64,
    )


@pytest.fixture
def start(tmp_path):
    keras.utils.set_random_seed(3)
    path = tmp_path / "start.keras"
    save_model(classifier(TINY, (16, 16, 3), 5, 0.5), path)
    return path


# -- features once -------------------------------------------------------------------------------------------------


@pytest.mark.backend
def test_the_head_learns_from_features_and_nothing_else_changes(data, start, tmp_path):
    settings = Settings(epochs=30, batch_size=16, freeze=True, cache_features=True, learning_rate=0.5)
    card = train(data, tmp_path / "run", TINY, 0.5, settings=settings, weights=start, quiet=True)
    assert card["metrics"]["accuracy"] >= 0.9
    assert card["training"]["epochs_run"] == 30
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 31
    trained, source = load_model(tmp_path / "run"), load_model(start)
    for layer in source.layers:
        if layer.weights and layer.name != "logits":
            for before, after in zip(layer.weights, trained.get_layer(layer.name).weights, strict=True):
                np.testing.assert_array_equal(before, after)
    last = json.loads((tmp_path / "run" / "card.json").read_text())["metrics"]["accuracy"]
    assert float((tmp_path / "run" / "history.csv").read_text().splitlines()[-1].split(",")[4]) == last


@pytest.mark.backend
def test_cached_features_teach_what_computing_them_every_time_teaches(data, start, tmp_path):
    common = {"epochs": 2, "batch_size": 90, "flip": False, "crop": "none", "freeze": True, "warmup_epochs": 0}
    accuracies, heads = [], []
    for cached in (False, True):
        settings = Settings(**common, cache_features=cached, learning_rate=0.1)
        out = tmp_path / f"cached {cached}"
        card = train(data, out, TINY, 0.5, settings=settings, weights=start, quiet=True)
        accuracies.append(card["metrics"]["accuracy"])
        heads.append(load_model(out).get_layer("logits").get_weights()[0])
    # The same images in another order within one step: the same gradient.
    np.testing.assert_allclose(heads[0], heads[1], atol=1e-4)
    assert accuracies[0] == accuracies[1]


def test_a_head_whose_loss_is_no_number_stops_and_keeps_its_last_good_weights(data, start, tmp_path):
    settings = Settings(epochs=8, batch_size=30, freeze=True, cache_features=True, learning_rate=1e38, warmup_epochs=0)
    with pytest.raises(UserError, match="training stopped: the loss became NaN or infinite in epoch"):
        train(data, tmp_path / "run", TINY, 0.5, settings=settings, weights=start, quiet=True)
    if (tmp_path / "run" / "model.keras").exists():
        head = load_model(tmp_path / "run").get_layer("logits").get_weights()
        assert all(np.isfinite(value).all() for value in head)


@pytest.mark.parametrize(
    ("option", "setting"),
    [
        ("--crop", {"crop": "pad"}),
        ("--randaugment", {"randaugment": 1}),
        ("--mixup", {"mixup": 0.2}),
        ("--ema", {"ema": True}),
        ("--patience", {"patience": 2}),
        ("--precision", {"precision": "bfloat16"}),
    ],
)
def test_what_cached_features_cannot_do_is_refused(option, setting):
    with pytest.raises(UserError, match=f"leave {option} out"):
        Settings(freeze=True, cache_features=True, **setting)


def test_options_without_anything_to_act_on_are_refused(data, start, tmp_path):
    with pytest.raises(UserError, match="--layer-decay is for the blocks that --freeze keeps"):
        Settings(freeze=True, layer_decay=0.5)
    settings = Settings(epochs=1, freeze=True, cache_features=True)
    with pytest.raises(UserError, match="writes no logs for TensorBoard"):
        train(data, tmp_path / "run", TINY, 0.5, settings=settings, weights=start, tensorboard=True, quiet=True)


def test_caching_features_asks_for_a_frozen_network():
    with pytest.raises(UserError, match="--cache-features must be used with --freeze"):
        Settings(cache_features=True)


# -- a rate for every block ----------------------------------------------------------------------------------------


def test_rates_fall_from_the_head_to_the_stem():
    rates = layer_rates(classifier(TINY, (16, 16, 3), 3, 0.5), 0.5, "logits".__eq__)
    assert rates["logits"] > rates["block2_pointwise"] > rates["block1_depthwise"] > rates["stem"]
    assert rates["block2_depthwise_bn"] == rates["block2_pointwise"] == 2 * rates["block1_pointwise"]


@pytest.mark.parametrize("form", [*HEADS.values(), *SEGMENTATION_HEADS.values()], ids=lambda form: form.name)
def test_all_of_a_head_has_the_full_rate(form):
    rates = layer_rates(built(V1, form, (64, 64, 3), 3, 0.25), 0.5, in_head)
    assert {rate for name, rate in rates.items() if not name.startswith(("stem", "block"))} == {1.0}
    assert (rates["block13_pointwise"], rates["stem"]) == (0.5, 0.5**14)


@pytest.mark.backend
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_block_moves_by_its_share_of_the_rate(optimizer):
    moved = []
    for decay in (1.0, 0.5):
        keras.utils.set_random_seed(0)
        model = classifier(TINY, (16, 16, 3), 3, 0.5)
        before = {layer.name: layer.get_weights() for layer in model.layers}
        settings = Settings(optimizer=optimizer, warmup_epochs=0, weight_decay=0.0, batch_size=8)
        rates = layer_rates(model, decay, "logits".__eq__)
        model.compile(make_optimizer(settings, model.trainable_variables, 10, 0.01, rates), "categorical_crossentropy")
        images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.float32)
        model.train_on_batch(images, np.eye(3, dtype=np.float32)[np.arange(8) % 3])
        moved.append(
            {
                name: np.abs(model.get_layer(name).get_weights()[0] - before[name][0]).mean()
                for name in ("stem", "block2_pointwise", "logits")
            }
        )
    for name in moved[0]:
        assert moved[1][name] == pytest.approx(rates[name] * moved[0][name], rel=1e-3)


def test_data_without_training_images_cannot_be_trained_on(data, tmp_path):
    empty = replace(data, train=Split(data.train.images[:0], data.train.labels[:0]))
    with pytest.raises(UserError, match="no image is left to train on"):
        train(empty, tmp_path / "run", TINY, 0.5, quiet=True)
    assert not (tmp_path / "run").exists()


# -- conventions ---------------------------------------------------------------------------------------------------


def test_conventions_come_with_the_weights(data, start, tmp_path):
    torch_like = TINY.converted(TINY.conventions | {"padding": "symmetric", "epsilon": 1e-5})
    settings = Settings(epochs=1, batch_size=30)
    train(data, tmp_path / "first", torch_like, 0.5, settings=settings, quiet=True)
    card = train(data, tmp_path / "second", TINY, 0.5, settings=settings, weights=tmp_path / "first", quiet=True)
    assert (card["conventions"]["padding"], card["conventions"]["epsilon"]) == ("symmetric", 1e-5)
    assert "stem_pad" not in {
        layer.name for layer in load_model(tmp_path / "second").layers
    }  # stride 1 under 64 pixels
    assert "block2_depthwise_pad" in {layer.name for layer in load_model(tmp_path / "second").layers}


@pytest.mark.parametrize(
    "change",
    [{"padding": "reflect"}, {"epsilon": 0}, {"epsilon": "x"}, {"mean": [1.0, 2.0]}, {"std": [0.0]}, {"std": None}],
)
def test_damaged_conventions_are_told(data, start, tmp_path, change):
    train(data, tmp_path / "run", TINY, 0.5, settings=Settings(epochs=1, batch_size=30), quiet=True)
    path = tmp_path / "run" / "card.json"
    card = json.loads(path.read_text())
    card["conventions"] |= change
    path.write_text(json.dumps(card))
    with pytest.raises(UserError, match="damaged, conventions"):
        as_trained(TINY, tmp_path / "run", 0.25)


# -- what keras.applications publishes -----------------------------------------------------------------------------


@pytest.fixture
def applications(monkeypatch, tmp_path):
    """keras.applications as if it were online: random weights, the same ones every time."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    build = keras.applications.MobileNetV3Small

    def fetched(shape, alpha, weights, seed=0, **options):
        assert weights == "imagenet"
        keras.utils.set_random_seed(seed)
        return build(shape, alpha=alpha, weights=None, **options)

    monkeypatch.setattr(keras.applications, "MobileNetV3Small", fetched)
    return fetched


def test_published_weights_are_fetched_and_remembered(applications, monkeypatch):
    network = architectures.network("v3_small")
    model = classifier(network, (64, 64, 3), 4, 0.75)
    assert not start_from(model, "imagenet", ("a", "b", "c", "d"), network, 0.75)
    expected = tensors_of(applications((224, 224, 3), alpha=0.75, weights="imagenet"))
    np.testing.assert_array_equal(model.get_layer("stem").get_weights()[0], expected["conv/kernel"])
    np.testing.assert_array_equal(model.get_layer("dense1").get_weights()[0], expected["conv_2/kernel"][0, 0])

    monkeypatch.setattr(
        keras.applications,
        "MobileNetV3Small",
        lambda *arguments, **options: applications(*arguments, **options, seed=1),
    )
    with pytest.raises(UserError, match="is not what was fetched the first time"):
        published.imagenet_model(network, 0.75, 64)


def test_published_weights_have_no_card(applications, monkeypatch, tmp_path):
    (tmp_path / "card.json").write_text("{}")  # of something else that lies in the working directory
    monkeypatch.chdir(tmp_path)
    network = architectures.network("v3_small")
    assert as_trained(network, "imagenet", 0.75) is network
    model = classifier(network, (64, 64, 3), 4, 0.75)
    assert not start_from(model, "imagenet", ("a", "b", "c", "d"), network, 0.75)


def test_what_is_not_published_is_told(applications):
    for name, alpha, words in (
        ("v3_small", 0.5, "only at --alpha 0.75, 1"),
        ("v4_conv_small", 1.0, "publishes none of MobileNet V4 Conv-S"),
    ):
        with pytest.raises(UserError, match=words):
            published.imagenet_model(architectures.network(name), alpha, 224)


def test_offline_says_what_to_do(cli, monkeypatch, tmp_path):
    def offline(*arguments, **options):
        raise Exception("URL fetch failure on https://somewhere: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
    status, out, err = cli(
        *("train", "digits", "--net", "v2", "--size", "32", "--weights", "imagenet", "--out", tmp_path / "run")
    )
    assert (status, out) == (2, "")
    assert "connect to the internet, or port a file with `mobilenets weights`" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
