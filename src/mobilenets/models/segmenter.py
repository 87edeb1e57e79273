"""Table -> Keras: segmenters."""

import keras

from mobilenets.architectures import Network, SegmentationHead, Shape, effective_resolution, write_out_segmenter
from mobilenets.models.builder import grow, preprocess, title

FAST = 4  # pixels of the image for each of a fast head's output, in height and in width


def segmenter(
    network: Network,
    head: SegmentationHead,
    input_shape: Shape,
    num_classes: int,
    width_multiplier: float = 1.0,
    resolution_multiplier: float = 1.0,
) -> keras.Model:
    """Builds any network of `mobilenets.architectures` as a semantic segmenter.

    Args:
        network: the table.
        head: of `mobilenets.architectures.segmentation_head`.
        input_shape: (height, width, channels) of the images that go in.
        num_classes: how many classes, at least 1, background among them where there is one.
        width_multiplier: alpha > 0; scales the channels of every layer, the head's too.
        resolution_multiplier: rho in (0, 1]; the images are resized inside the model to ``round(rho * side)``.

    Returns:
        A model with random weights. It takes pixel values 0..255, shape (batch, height, width, channels), and returns
        class probabilities, shape (batch, height, width, num_classes): of each pixel, or, with a ``fast`` head, of each
        4 x 4 of them.

    Raises:
        ValueError: names the argument that is out of its range, and the range.
    """
    layers = write_out_segmenter(network, head, input_shape, num_classes, width_multiplier, resolution_multiplier)
    image = keras.Input(input_shape, name="image")
    tensors = grow(layers, preprocess(network, image, effective_resolution(input_shape, resolution_multiplier)))
    x = tensors[layers[-1].name]
    sides = tuple(-(-side // FAST) if head.fast else side for side in input_shape[:2])
    if tuple(x.shape[1:3]) != sides:
        x = keras.layers.Resizing(*sides, data_format="channels_last", name="output_resize")(x)
    # Probabilities stay float32 under mixed precision.
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(x)
    return keras.Model(image, probabilities, name=f"{title(network)}_{head.name}")


def scores_model(model: keras.Model) -> keras.Model:
    """The segmenter without its softmax, sharing all layers: logits (batch, height, width, classes) of its output."""
    return keras.Model(model.input, model.get_layer("probabilities").input, name=f"{model.name}_scores")
