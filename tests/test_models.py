"""The builder against Keras' own MobileNet, its arguments, and files."""

import json
import zipfile

import numpy as np
import pytest

import mobilenets
from mobilenets import mobilenet_v1
from mobilenets.architectures import RESNET50, V1, VGG16, cost, write_out
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.builder import backbone, classifier, logits_model
from mobilenets.models.saving import load_model, save_model

pytestmark = pytest.mark.backend


def images(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.float32)


def randomize(model: keras.Model, seed: int = 0) -> None:
    """Random weights, batch statistics among them, that keep the activations in range."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        values = layer.get_weights()
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = values[0].shape
            values = [rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.3, shape)]
            values += [rng.normal(0, 0.2, shape), rng.uniform(0.3, 2, shape)]
        elif values:
            fan = np.prod(values[0].shape[: 2 if "Depthwise" in type(layer).__name__ else -1])
            values = [rng.normal(0, (1.5 / fan) ** 0.5, value.shape) for value in values]
        layer.set_weights(values)


def weighted(model: keras.Model, kinds) -> list[keras.Layer]:
    return [layer for layer in model.layers if isinstance(layer, kinds)]


@pytest.mark.parametrize("size", [224, 128])
@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75, 1.0])
def test_outputs_are_those_of_keras_mobilenet_with_the_same_weights(alpha, size):
    reference = keras.applications.MobileNet((size, size, 3), alpha=alpha, weights=None, classes=10)
    randomize(reference)
    model = mobilenet_v1((size, size, 3), 10, alpha)
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.BatchNormalization)
    theirs = weighted(reference, kinds)
    head = theirs.pop().get_weights()  # a 1x1 convolution there, a dense layer here
    for layer, source in zip(weighted(model, kinds), theirs, strict=True):
        layer.set_weights(source.get_weights())
    model.get_layer("logits").set_weights([head[0][0, 0], head[1]])
    pixels = images(2, size, size, 3)
    expected = reference.predict_on_batch(keras.applications.mobilenet.preprocess_input(pixels.copy()))
    measured = model.predict_on_batch(pixels)
    assert np.ptp(expected) > 1e-3  # else the comparison would say nothing
    np.testing.assert_allclose(measured, expected, atol=1e-4)
    np.testing.assert_allclose(np.log(measured), np.log(expected), atol=1e-3)


@pytest.mark.parametrize("network", [V1, VGG16, RESNET50], ids=lambda network: network.name)
def test_keras_counts_the_parameters_of_the_table(network):
    model = classifier(network, (64, 64, 3), 10)
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert trainable == cost(write_out(network, (64, 64, 3), 10)).params


@pytest.mark.parametrize("alpha", [0.1, 0.35, 1.3])
def test_any_width_builds_with_the_parameters_of_the_table(alpha):
    model = mobilenet_v1((32, 32, 3), 7, alpha)
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert trainable == cost(write_out(V1, (32, 32, 3), 7, alpha)).params


def test_every_convolution_is_followed_by_batch_normalization_and_relu():
    model = mobilenet_v1((64, 64, 3), 3, 0.25)
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    convolutions = weighted(model, kinds)
    assert len(convolutions) == 27
    for index, layer in enumerate(model.layers):
        if isinstance(layer, kinds):
            follower = model.layers[index + 1]
            assert isinstance(follower, keras.layers.BatchNormalization)
            assert follower.activation is keras.activations.relu6
            assert not layer.use_bias


def test_the_signature_of_the_article_gives_probabilities_from_pixels():
    model = mobilenet_v1(input_shape=(224, 224, 3), num_classes=10, width_multiplier=0.5, resolution_multiplier=0.714)
    assert model.input_shape == (None, 224, 224, 3)
    assert model.output_shape == (None, 10)
    probabilities = model.predict_on_batch(images(2, 224, 224, 3))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert tuple(model.get_layer("stem").input.shape) == (None, 160, 160, 3)


def test_rho_computes_what_resizing_first_computes():
    model = mobilenet_v1((96, 64, 3), 5, 0.25, 0.5)
    small = mobilenet_v1((48, 32, 3), 5, 0.25)
    small.set_weights(model.get_weights())
    pixels = images(2, 96, 64, 3)
    # Halving with bilinear weights at pixel centres is the mean of 2x2 pixels.
    halved = pixels.reshape(2, 48, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(model.predict_on_batch(pixels), small.predict_on_batch(halved), atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (33, 47, 3), (64, 40, 4)])
def test_any_shape_of_image_goes_in(shape):
    assert mobilenet_v1(shape, 2, 0.25).predict_on_batch(images(1, *shape)).shape == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"input_shape": (224, 224)}, "input_shape"),
        ({"input_shape": (4, 4, 3)}, "input_shape"),
        ({"num_classes": 0}, "num_classes"),
        ({"width_multiplier": 0}, "width_multiplier"),
        ({"resolution_multiplier": 0}, r"\(0, 1\]"),
        ({"resolution_multiplier": 1.5}, "resolution_multiplier"),
    ],
)
def test_a_bad_argument_is_a_value_error_that_names_it(arguments, word):
    with pytest.raises(ValueError, match=word):
        mobilenet_v1(**({"input_shape": (32, 32, 3), "num_classes": 2} | arguments))


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_computes_what_striding_computes(output_stride):
    """With stride 1 and dilation, every other pixel of a map is the map that striding gives."""
    strided = backbone(V1, (64, 64, 3), 0.25)
    dilated = backbone(V1, (64, 64, 3), 0.25, output_stride=output_stride)
    randomize(strided)
    dilated.set_weights(strided.get_weights())
    pixels = images(1, 64, 64, 3)
    expected = np.asarray(strided.predict_on_batch(pixels)["32"])
    measured = np.asarray(dilated.predict_on_batch(pixels)[str(output_stride)])
    step = 32 // output_stride
    assert measured.shape[1:3] == (64 // output_stride,) * 2
    # "Same" padding puts the strided kernels' centres on the last pixel of each step.
    np.testing.assert_allclose(measured[:, step - 1 :: step, step - 1 :: step], expected, atol=1e-4)


def test_the_backbone_gives_features_by_stride():
    features = backbone(V1, (64, 96, 3), 0.5).output
    assert {stride: tuple(tensor.shape[1:]) for stride, tensor in features.items()} == {
        "2": (32, 48, 32),
        "4": (16, 24, 64),
        "8": (8, 12, 128),
        "16": (4, 6, 256),
        "32": (2, 3, 512),
    }


def test_logits_and_probabilities_belong_together():
    model = mobilenet_v1((32, 32, 3), 4, 0.25)
    pixels = images(3, 32, 32, 3)
    logits = np.asarray(logits_model(model).predict_on_batch(pixels), np.float64)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_on_batch(pixels), softmax, atol=1e-5)


def test_a_saved_model_comes_back_the_same(tmp_path):
    model = mobilenet_v1((40, 40, 3), 3, 0.25, 0.8)
    randomize(model)
    save_model(model, tmp_path / "model.keras")
    pixels = images(2, 40, 40, 3)
    loaded = mobilenets.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict_on_batch(pixels), model.predict_on_batch(pixels), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_damaged_model_files_are_refused_in_one_line(tmp_path):
    good = tmp_path / "good.keras"
    save_model(mobilenet_v1((8, 8, 3), 2, 0.25), good)
    content = good.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    for name, damaged in {
        "empty": b"",
        "text": b"this is no model",
        "truncated": content[: len(content) // 2],
        "flipped": bytes(flipped),
    }.items():
        path = tmp_path / f"{name}.keras"
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{name}.keras: (damaged|not a)") as caught:
            load_model(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such model"):
        load_model(tmp_path / "missing.keras")


def test_any_damaged_byte_of_an_archive_s_index_is_told(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("config.json", "metadata.json"):
            archive.writestr(name, "{}" * 50)
    content = path.read_bytes()
    for place in range(len(content)):
        for value in (0xFF, 0x07):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            with pytest.raises(UserError) as caught:
                load_model(path)
            assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_what_is_no_model_is_told(tmp_path):
    keras.saving.save_model(keras.Sequential([keras.layers.Dense(3)]), tmp_path / "model.keras")
    with pytest.raises(UserError, match="not a usable Keras model"):
        load_model(tmp_path / "model.keras")


def test_a_model_file_that_asks_for_code_to_be_run_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)])
    path = tmp_path / "lambda.keras"
    model.save(path)
    with pytest.raises(UserError, match="not a usable Keras model"):
        load_model(path)


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps({}))
        archive.writestr("metadata.json", b"0" * (20 << 20))
    monkeypatch.setattr("mobilenets.models.saving.LARGEST_MODEL", 10 << 20)
    with pytest.raises(UserError, match="unpacks to"):
        load_model(path)
