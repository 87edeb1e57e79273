"""Layers of our own against the plain ones they stand for, on whatever KERAS_BACKEND names."""

import keras
import numpy as np
import pytest
from keras import ops

from mobilenets.models.layers import BatchNormReLU, Conv2D, DepthwiseConv2D

pytestmark = pytest.mark.backend

# Batch 1, one pixel, one channel, odd sides and channels that fill no vector register.
SHAPES = [(8, 6, 5, 16), (3, 1, 7, 5), (1, 5, 3, 1), (16, 1, 1, 9), (6, 10)]
CONVOLUTIONS = (Conv2D, keras.layers.Conv2D)


def inputs(shape, seed=0):
    """Values away from mean 0 and variance 1, and an upstream gradient."""
    random = np.random.default_rng(seed)
    scale = random.uniform(0.5, 3, shape[-1])
    x = random.normal(2, 1, shape) * scale
    return x.astype("float32"), random.normal(0, 1, shape).astype("float32")


def pair(shape, activation, dtype="float32", **options):
    """Our layer, and the plain layer with its activation behind it, with equal weights."""
    ours = BatchNormReLU(activation, dtype=dtype, **options)
    norm = keras.layers.BatchNormalization(dtype=dtype, **options)
    random = np.random.default_rng(1)
    for layer in (ours, norm):
        layer.build(shape)
    weights = [random.uniform(0.5, 1.5, weight.shape).astype("float32") for weight in norm.weights]
    ours.set_weights(weights)
    norm.set_weights(weights)
    act = keras.layers.Activation(activation or "linear", dtype=dtype)
    return ours, norm, lambda x, training: act(norm(x, training=training))


def gradients(function, layer, x, upstream):
    """d(sum(upstream * function(x))) by x and by the trainable variables, on any backend."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        variables = [variable.value for variable in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.cast(function(x, True), "float32") * upstream)
        found = tape.gradient(loss, [x, *variables])
    elif backend == "jax":
        import jax

        def loss(x, values):
            mapping = list(zip(layer.trainable_variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return ops.sum(ops.cast(function(x, True), "float32") * upstream)

        values = [variable.value for variable in layer.trainable_variables]
        by_x, by_values = jax.grad(loss, argnums=(0, 1))(ops.convert_to_tensor(x), values)
        found = [by_x, *by_values]
    else:
        import torch

        x = ops.convert_to_tensor(x).detach().requires_grad_(True)
        variables = [variable.value for variable in layer.trainable_variables]
        loss = ops.sum(ops.cast(function(x, True), "float32") * ops.convert_to_tensor(upstream))
        found = torch.autograd.grad(loss, [x, *variables])
    return [np.asarray(ops.convert_to_numpy(gradient), "float32") for gradient in found]


def close(ours, plain, dtype="float32"):
    ours, plain = (np.asarray(ops.convert_to_numpy(ops.cast(value, "float32"))) for value in (ours, plain))
    relative = 2e-4 if dtype == "float32" else 3e-2
    np.testing.assert_allclose(ours, plain, rtol=relative, atol=relative * max(1e-3, np.abs(plain).max()))


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_training_equals_the_plain_layers(shape, activation):
    x, upstream = inputs(shape)
    ours, norm, plain = pair(shape, activation, momentum=0.9)
    for mine, theirs in zip(
        gradients(lambda x, training: ours(x, training=training), ours, x, upstream),
        gradients(plain, norm, x, upstream),
        strict=True,
    ):
        close(mine, theirs)
    ours, norm, plain = pair(shape, activation, momentum=0.9)
    for seed in range(3):  # several steps, so that the averages really move
        x, _ = inputs(shape, seed)
        close(ours(x, training=True), plain(x, True))
    for mine, theirs in zip(ours.weights, norm.weights, strict=True):
        assert mine.name == theirs.name
        close(mine, theirs)


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"epsilon": 1e-5, "momentum": 0.5}])
def test_options_are_kept(options):
    x, upstream = inputs((4, 5, 5, 6))
    ours, norm, plain = pair(x.shape, "relu6", **options)
    for mine, theirs in zip(
        gradients(lambda x, training: ours(x, training=training), ours, x, upstream),
        gradients(plain, norm, x, upstream),
        strict=True,
    ):
        close(mine, theirs)


@pytest.mark.parametrize("frozen", [False, True])
def test_inference_uses_the_moving_statistics(frozen):
    x, _ = inputs((3, 5, 4, 7))
    ours, norm, plain = pair(x.shape, "relu6")
    ours.trainable = norm.trainable = not frozen
    before = ours.get_weights()
    np.testing.assert_array_equal(*(ops.convert_to_numpy(y) for y in (ours(x, training=frozen), plain(x, frozen))))
    for old, new in zip(before, ours.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_mixed_precision():
    x, upstream = inputs((8, 9, 7, 16))
    ours, norm, plain = pair(x.shape, "relu6", dtype="mixed_bfloat16")
    y = ours(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    close(y, plain(x, True), "bfloat16")
    for mine, theirs in zip(ours.weights, norm.weights, strict=True):
        assert keras.backend.standardize_dtype(mine.dtype) == "float32"
        close(mine, theirs, "bfloat16")
    # Near the bounds of ReLU6 a rounding decides whether a gradient passes: compare sums over many values.
    ours, norm, plain = pair(x.shape, None, dtype="mixed_bfloat16")
    for mine, theirs in zip(
        gradients(lambda x, training: ours(x, training=training), ours, x, upstream),
        gradients(plain, norm, x, upstream),
        strict=True,
    ):
        close(mine, theirs, "bfloat16")


def test_training_a_model_and_reading_it_back(tmp_path):
    x, _ = inputs((24, 8, 8, 3))
    labels = np.arange(24) % 3
    image = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(8, 3, use_bias=False)(image)
    y = BatchNormReLU("relu6", momentum=0.9)(y)
    y = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(y))
    model = keras.Model(image, y)
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    losses = model.fit(x, labels, batch_size=10, epochs=3, verbose=0, shuffle=False).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")  # safe_mode is on
    layer = next(layer for layer in copy.layers if isinstance(layer, BatchNormReLU))
    assert layer.momentum == 0.9
    assert layer.activation is keras.activations.relu6
    np.testing.assert_array_equal(copy.predict(x, verbose=0), model.predict(x, verbose=0))


def test_unknown_activation():
    with pytest.raises(ValueError, match="rolu"):
        BatchNormReLU("rolu")


def same_function_and_gradients(ours, plain, images, atol=1e-5):
    """Whether two layers compute the same, and learn the same of it, given the same weights."""
    ours.build(images.shape)
    plain.build(images.shape)
    ours.bias.assign(np.linspace(-1, 1, ours.bias.shape[0], dtype=np.float32))
    plain.set_weights(ours.get_weights())
    expected = ops.convert_to_numpy(plain(images))
    upstream = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    for training in (False, True):
        np.testing.assert_allclose(ops.convert_to_numpy(ours(images, training=training)), expected, atol=atol)
    found = gradients(lambda x, training: ours(x, training=training), ours, images, upstream)
    wanted = gradients(lambda x, _: plain(x), plain, images, upstream)
    for mine, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, other, atol=atol * max(1, np.abs(other).max()))


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "shape"),
    [
        (3, 1, 1, (8, 8)),
        (3, 1, 1, (1, 1)),
        (3, 2, 1, (7, 10)),
        (3, 2, 1, (2, 5)),
        (5, 1, 1, (2, 2)),
        (5, 2, 1, (4, 3)),
        (3, 1, 2, (7, 10)),
        (5, 1, 3, (1, 5)),
    ],
)
def test_depthwise_is_the_plain_depthwise(kernel, stride, dilation, shape):
    options = {"strides": stride, "dilation_rate": dilation, "padding": "same", "data_format": "channels_last"}
    ours, plain = (kind(kernel, **options) for kind in (DepthwiseConv2D, keras.layers.DepthwiseConv2D))
    same_function_and_gradients(ours, plain, np.random.default_rng(0).normal(size=(2, *shape, 6)).astype(np.float32))


@pytest.mark.parametrize(
    ("kernel", "options"),
    [(1, {}), (1, {"activation": "relu6"}), (1, {"strides": 2}), (1, {"groups": 2}), (3, {}), ((1, 3), {})],
)
def test_conv_is_the_plain_conv(kernel, options):
    ours, plain = (kind(4, kernel, data_format="channels_last", padding="same", **options) for kind in CONVOLUTIONS)
    same_function_and_gradients(ours, plain, np.random.default_rng(0).normal(size=(2, 7, 10, 6)).astype(np.float32))


def test_images_of_any_size_are_learned_from_as_by_the_plain_layers():
    def model(conv, depthwise):
        image = keras.Input((None, None, 3))
        y = conv(6, 1, name="a", data_format="channels_last")(image)
        y = depthwise(3, padding="same", data_format="channels_last", name="b")(y)
        y = depthwise(5, 2, padding="same", data_format="channels_last", name="c")(y)
        made = keras.Model(image, keras.layers.GlobalAveragePooling2D(data_format="channels_last")(y))
        made.compile(keras.optimizers.SGD(0.1), "mse")
        return made

    ours, plain = model(Conv2D, DepthwiseConv2D), model(keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    plain.set_weights(ours.get_weights())
    before = ours.get_weights()
    random = np.random.default_rng(0)
    for side in (1, 2, 3, 4, 5, 9, 2):
        x, y = random.normal(size=(4, side, side, 3)).astype(np.float32), random.normal(size=(4, 6)).astype(np.float32)
        for each in (ours, plain):
            each.train_on_batch(x, y)
    for mine, other, start in zip(ours.get_weights(), plain.get_weights(), before, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)
        assert np.abs(mine - start).max() > 1e-3
