"""Segmenters: their tables, and the Keras models built from them."""

import numpy as np
import pytest

from mobilenets.architectures import FAMILY, SEGMENTATION_HEADS, cost, network, segmentation_head, write_out_segmenter
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.builder import backbone
from mobilenets.models.saving import load_model, save_model
from mobilenets.models.segmenter import segmenter

V1 = network("v1")
PLAIN = ("lraspp", "deeplabv3_plus")


def pixels(height: int, width: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype(np.float32)


def shaken(model: keras.Model) -> keras.Model:
    """Random weights that keep the signal and that nothing plain would pass for."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            kernel, *bias = layer.get_weights()
            fan = np.prod(kernel.shape[:2] if "Depthwise" in type(layer).__name__ else kernel.shape[:3])
            bias = [rng.normal(0, 0.3, each.shape) for each in bias]
            layer.set_weights([rng.normal(0, (2 / fan) ** 0.5, kernel.shape), *bias])
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.3, shape), np.zeros(shape), np.ones(shape)]
            )
    return model


@pytest.mark.parametrize("name", SEGMENTATION_HEADS)
@pytest.mark.parametrize("table", FAMILY, ids=lambda table: table.name)
def test_every_network_takes_every_head(table, name):
    layers = write_out_segmenter(table, segmentation_head(name), (128, 128, 3), 5, 0.5)
    found = {layer.name: layer for layer in layers}
    assert len(found) == len(layers)
    read = {source for layer in layers for source in layer.inputs}
    assert set(found) - read == {"logits"}  # nothing is computed for nobody
    side = {"lraspp": 16, "lraspp_wide": 16, "deeplabv3_plus": 32, "deeplabv3": 8}[name]
    assert layers[-1].output_shape == (side, side, 5)


@pytest.mark.parametrize(
    ("name", "sides"), [("lraspp", (32, 32, 32)), ("deeplabv3_plus", (64, 64, 64)), ("deeplabv3", (32, 16, 8))]
)
@pytest.mark.parametrize("table", FAMILY, ids=lambda table: table.name)
def test_weights_fit_every_output_stride(table, name, sides):
    found = [write_out_segmenter(table, segmentation_head(name, stride), (256, 256, 3), 8) for stride in (8, 16, 32)]
    for layers, side, stride in zip(found, sides, (8, 16, 32), strict=True):
        assert layers[-1].output_shape == (side, side, 8)
        deepest = [layer for layer in layers if layer.block != "segmenter"][-1]
        assert deepest.output_shape[0] == 256 // stride
    weights = [{layer.name: (layer.kernel, layer.params) for layer in layers if layer.params} for layers in found]
    assert weights[0] == weights[1] == weights[2]


@pytest.mark.parametrize("name", ["v1", "v2", "v4_conv_small"])
def test_dilation_computes_what_strides_compute(name):
    """Of what an output stride of 8 or 16 computes, every second or fourth place is what 32 computes."""
    table = network(name)
    features = {}
    for stride in (8, 16, 32):
        model = shaken(backbone(table, (128, 64, 3), 0.25, output_stride=stride))
        features[stride] = keras.ops.convert_to_numpy(model(pixels(128, 64))[str(stride)])
    assert features[32].std() > 0.1
    for stride in (8, 16):
        step = 32 // stride
        # Of an even side, what is added to it for a stride stands below and right: the last place of each is meant.
        np.testing.assert_allclose(features[stride][:, step - 1 :: step, step - 1 :: step], features[32], atol=1e-4)


@pytest.mark.parametrize("name", PLAIN)
def test_dilated_kernels_are_those_with_zeros_between(name):
    model = shaken(segmenter(network("v2"), segmentation_head(name, 8), (64, 96, 3), 4, 0.35))
    dilated = [layer for layer in model.layers if getattr(layer, "dilation_rate", (1, 1))[0] > 1]
    assert len({layer.dilation_rate[0] for layer in dilated}) >= 2
    seen = keras.Model(model.input, [each for layer in dilated for each in (layer.input, layer.output)])
    values = [keras.ops.convert_to_numpy(each) for each in seen(pixels(64, 96))]
    for layer, before, after in zip(dilated, values[::2], values[1::2], strict=True):
        rate, kernel = layer.dilation_rate[0], layer.get_weights()[0]
        reach = (kernel.shape[0] - 1) * rate + 1
        spread = np.zeros((reach, reach, *kernel.shape[2:]), np.float32)
        spread[::rate, ::rate] = kernel
        plain = keras.ops.depthwise_conv(before, spread, padding="same")
        np.testing.assert_allclose(keras.ops.convert_to_numpy(plain), after, atol=1e-3)


@pytest.mark.parametrize("head", PLAIN)
@pytest.mark.parametrize(
    "name",
    [pytest.param("v1", marks=pytest.mark.backend), "v3_small", pytest.param("v4_conv_small", marks=pytest.mark.long)],
)
def test_a_model_gives_probabilities_of_each_pixel(name, head, tmp_path):
    form = segmentation_head(head)
    model = segmenter(network(name), form, (66, 97, 3), 3, 0.25)
    images = pixels(66, 97)
    found = model.predict_on_batch(images)
    assert found.shape == (2, 66, 97, 3)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)
    layers = write_out_segmenter(network(name), form, (66, 97, 3), 3, 0.25)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == cost(layers).params
    save_model(model, tmp_path / "model.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras").predict_on_batch(images), found)


@pytest.mark.parametrize("head", PLAIN)
def test_a_fast_head_says_a_sixteenth(head):
    model = segmenter(V1, segmentation_head(head, 32, fast=True), (66, 97, 3), 3, 0.25, 0.5)
    assert model.output_shape == (None, 17, 25, 3)


@pytest.mark.parametrize("head", PLAIN)
@pytest.mark.parametrize("size", [8, 16, 33])
def test_small_images_have_maps_too(head, size):
    model = segmenter(V1, segmentation_head(head), (size, size, 3), 2, 0.25)
    assert model.output_shape == (None, size, size, 2)


def test_parameters_are_those_torchvision_publishes():
    layers = write_out_segmenter(network("v3_large"), segmentation_head("lraspp-wide"), (256, 256, 3), 21)
    assert cost(layers).params == 3_221_538


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("unet",), "--head unet: unknown; choose of lraspp, deeplabv3_plus, lraspp_wide, deeplabv3"),
        (("lraspp", 4), "--output-stride must be one of 8, 16, 32, not 4"),
    ],
)
def test_what_there_is_not_is_named(arguments, why):
    with pytest.raises(UserError, match=why):
        segmentation_head(*arguments)


def test_more_classes_than_a_byte_tells_apart_are_refused():
    with pytest.raises(UserError, match="at most 255 classes apart, not 256"):
        segmenter(V1, segmentation_head("lraspp"), (32, 32, 3), 256, 0.25)
