"""Table -> Keras: one builder for every network, and the classifier's head."""

import keras

from mobilenets.architectures import CLASSICS, Layer, Network, Shape, check, effective_resolution, taps, write_out
from mobilenets.errors import UserError
from mobilenets.models.layers import BatchNormReLU, Conv2D, DepthwiseConv2D, LayerScale, MultiQueryAttention

Tensor = keras.KerasTensor


def classifier(
    network: Network,
    input_shape: Shape,
    num_classes: int,
    width_multiplier: float = 1.0,
    resolution_multiplier: float = 1.0,
    *,
    output_stride: int = 32,
) -> keras.Model:
    """Builds any network of `mobilenets.architectures` as an image classifier.

    Batch normalization and the network's activation follow every convolution that its table does not leave linear.
    Images smaller than 64 pixels keep stride 1 in the stem.

    Args:
        network: the table.
        input_shape: (height, width, channels) of the images that go in.
        num_classes: how many classes, at least 1.
        width_multiplier: alpha > 0; scales the channels of every layer, rounded to a multiple of 8.
        resolution_multiplier: rho in (0, 1]; the images are resized inside the model to ``round(rho * side)``.
        output_stride: 8, 16 or 32, see `mobilenets.architectures.write_out`.

    Returns:
        A model with random weights. It takes pixel values 0..255, shape (batch, height, width, channels), and
        returns class probabilities, shape (batch, num_classes).

    Raises:
        ValueError: names the argument that is out of its range, and the range.
    """
    check(input_shape, num_classes, width_multiplier, resolution_multiplier, output_stride)
    layers = write_out(network, input_shape, num_classes, width_multiplier, resolution_multiplier, output_stride)
    image = keras.Input(input_shape, name="image")
    x = preprocess(network, image, effective_resolution(input_shape, resolution_multiplier))
    x = grow(layers, x)["logits"]
    # Probabilities stay float32 under mixed precision: bfloat16 has three digits.
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(x)
    return keras.Model(image, probabilities, name=title(network))


def backbone(
    network: Network,
    input_shape: Shape,
    width_multiplier: float = 1.0,
    resolution_multiplier: float = 1.0,
    *,
    output_stride: int = 32,
) -> keras.Model:
    """Builds a network without its head.

    Returns:
        A model from pixel values 0..255 to a dict of features by stride, ``{4: (batch, h/4, w/4, c), ...}``.
    """
    check(input_shape, 1, width_multiplier, resolution_multiplier, output_stride)
    layers = write_out(network, input_shape, 1, width_multiplier, resolution_multiplier, output_stride)
    body = [layer for layer in layers if layer.block != "head"]
    image = keras.Input(input_shape, name="image")
    tensors = grow(body, preprocess(network, image, effective_resolution(input_shape, resolution_multiplier)))
    features = {str(stride): tensors[layer.name] for stride, layer in taps(layers).items()}
    return keras.Model(image, features, name=f"{title(network)}_backbone")


def title(network: Network) -> str:
    """Of a Keras model."""
    classic = network.name in {member.name for member in CLASSICS}
    return network.name if classic else f"mobilenet_{network.name}"


def preprocess(network: Network, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes to (height, width) where needed and brings 0..255 to what the network's weights know, in the model."""
    if len(network.mean) not in (1, image.shape[-1]):
        raise UserError(
            f"input_shape must have {len(network.mean)} channels, for which these weights know mean and deviation, "
            f"not {image.shape[-1]}"
        )
    if tuple(image.shape[1:3]) != size:
        image = keras.layers.Resizing(*size, data_format="channels_last", name="resize")(image)
    scale = [1 / std for std in network.std]
    offset = [-mean / std for mean, std in zip(network.mean, network.std, strict=True)]
    if len(scale) == 1:
        return keras.layers.Rescaling(scale[0], offset=offset[0], name="rescale")(image)
    return keras.layers.Rescaling(scale, offset=offset, name="rescale")(image)


def logits_model(model: keras.Model, features: bool = False) -> keras.Model:
    """The classifier without its softmax, sharing all layers: losses computed from logits are exact.

    With ``features``, what the head reads stands behind the logits of each image: (batch, classes + features).
    """
    head = model.get_layer("logits")
    output = head.output
    if features:
        seen = head.input
        if len(seen.shape) > 2:
            seen = keras.layers.Flatten("channels_last", name="features")(seen)
        output = keras.layers.Concatenate(name="logits_and_features", dtype="float32")([output, seen])
    return keras.Model(model.input, output, name=f"{model.name}_logits")


def at_size(model: keras.Model, size: int | None) -> keras.Model:
    """A classifier for images of another size, with copies of the same weights.

    Where the model resizes images to ``size`` itself, nothing is left to resize.

    Args:
        model: any that averages its features over the image.
        size: pixels; None for images of any size, which attention does not take.

    Raises:
        UserError: its layers do not fit images of that size.
    """
    if tuple(model.input_shape[1:3]) == (size, size):
        return model
    try:
        image = keras.Input((size, size, model.input_shape[3]), name="image")
        twin = keras.models.clone_model(model, input_tensors=image)
        twin.set_weights(model.get_weights())
    except ValueError as error:
        raise UserError(f"--size {size}: this model cannot take such images ({str(error).splitlines()[0]})") from None
    return twin


def grow(layers: list[Layer], image: Tensor) -> dict[str, Tensor]:
    """Builds the layers on ``image``; returns every layer's output by its name."""
    tensors = {"image": image}
    for layer in layers:
        inputs = [tensors[name] for name in layer.inputs]
        tensors[layer.name] = _BUILD[layer.kind](layer, *inputs)
    return tensors


def _convolution(layer: Layer, x: Tensor) -> Tensor:
    padding = "same"
    if layer.padding == "symmetric" and layer.stride > 1 and layer.kernel > 1:
        margin = (layer.kernel - 1) // 2 * layer.dilation
        x = keras.layers.ZeroPadding2D(margin, data_format="channels_last", name=f"{layer.name}_pad")(x)
        padding = "valid"
    options = {
        "strides": layer.stride,
        "padding": padding,
        "dilation_rate": layer.dilation,
        "use_bias": layer.bias,
        "data_format": "channels_last",
        "name": layer.name,
    }
    if layer.kind == "conv":
        conv = Conv2D(layer.output_shape[2], layer.kernel, kernel_initializer="he_normal", **options)
    else:
        # As in the authors' code (tensorflow/models, slim).
        initial = keras.initializers.TruncatedNormal(stddev=0.09)
        conv = DepthwiseConv2D(layer.kernel, depthwise_initializer=initial, **options)
    return _finish(layer, conv(x))


def _add(layer: Layer, x: Tensor, shortcut: Tensor) -> Tensor:
    return _finish(layer, keras.layers.Add(name=layer.name)([x, shortcut]))


def _finish(layer: Layer, x: Tensor) -> Tensor:
    """Puts batch normalization and activation behind a layer, as far as it has them."""
    if layer.norm:
        # Keras' momentum of 0.99 needs some 500 steps before the statistics mean anything; a small folder may
        # not have as many.
        return BatchNormReLU(layer.activation, layer.epsilon, momentum=0.9, name=f"{layer.name}_bn")(x)
    if layer.activation:
        return keras.layers.Activation(layer.activation, name=f"{layer.name}_{layer.activation}")(x)
    return x


def _max_pool(layer: Layer, x: Tensor) -> Tensor:
    pool = keras.layers.MaxPooling2D(
        layer.kernel, layer.stride, padding="same", data_format="channels_last", name=layer.name
    )
    return pool(x)


def _resize(layer: Layer, x: Tensor) -> Tensor:
    return keras.layers.Resizing(*layer.output_shape[:2], data_format="channels_last", name=layer.name)(x)


def _pool(layer: Layer, x: Tensor) -> Tensor:
    keep = layer.kind == "squeeze"
    return keras.layers.GlobalAveragePooling2D(data_format="channels_last", keepdims=keep, name=layer.name)(x)


def _dense(layer: Layer, x: Tensor) -> Tensor:
    return _finish(layer, keras.layers.Dense(layer.output_shape[2], use_bias=layer.bias, name=layer.name)(x))


_BUILD = {
    "conv": _convolution,
    "depthwise": _convolution,
    "norm": _finish,
    "attention": lambda layer, *qkv: MultiQueryAttention(layer.heads, name=layer.name)(list(qkv)),
    "layer_scale": lambda layer, x: LayerScale(name=layer.name)(x),
    "multiply": lambda layer, *pair: keras.layers.Multiply(name=layer.name)(list(pair)),
    "add": _add,
    "max_pool": _max_pool,
    "resize": _resize,
    "squeeze": _pool,
    "global_pool": _pool,
    "flatten": lambda layer, x: keras.layers.Flatten("channels_last", name=layer.name)(x),
    "dense": _dense,
}
