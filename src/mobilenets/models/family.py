"""One function a network of the family, all with the same signature."""

from typing import Protocol

import keras

from mobilenets.architectures import Network, Shape, network
from mobilenets.models.builder import classifier


class Build(Protocol):
    """What every function here takes."""

    def __call__(
        self,
        input_shape: Shape,
        num_classes: int,
        width_multiplier: float = 1.0,
        resolution_multiplier: float = 1.0,
    ) -> keras.Model: ...


def _function(table: Network) -> Build:
    def build(
        input_shape: Shape,
        num_classes: int,
        width_multiplier: float = 1.0,
        resolution_multiplier: float = 1.0,
    ) -> keras.Model:
        return classifier(table, input_shape, num_classes, width_multiplier, resolution_multiplier)

    build.__name__ = build.__qualname__ = f"mobilenet_{table.name}"
    build.__doc__ = f"""Builds a {table.title} classifier ({table.paper}).

    Args:
        input_shape: (height, width, channels) of the images that go in; the paper's are
            {table.resolution}x{table.resolution}x3. Those smaller than 64 pixels keep stride 1 in the stem.
        num_classes: how many classes, at least 1.
        width_multiplier: alpha > 0; scales the channels, rounded to a multiple of 8.
        resolution_multiplier: rho in (0, 1]; the images are resized inside the model to ``round(rho * side)``.

    Returns:
        A model with random weights. It takes pixel values 0..255, shape (batch, height, width, channels), and
        returns class probabilities, shape (batch, num_classes).

    Raises:
        ValueError: names the argument that is out of its range, and the range.
    """
    return build


mobilenet_v1 = _function(network("v1"))
mobilenet_v2 = _function(network("v2"))
mobilenet_v3_large = _function(network("v3_large"))
mobilenet_v3_small = _function(network("v3_small"))
mobilenet_v3_large_minimalistic = _function(network("v3_large_minimalistic"))
mobilenet_v3_small_minimalistic = _function(network("v3_small_minimalistic"))
mobilenet_v4_conv_small = _function(network("v4_conv_small"))
mobilenet_v4_conv_medium = _function(network("v4_conv_medium"))
mobilenet_v4_conv_large = _function(network("v4_conv_large"))
mobilenet_v4_hybrid_medium = _function(network("v4_hybrid_medium"))
mobilenet_v4_hybrid_large = _function(network("v4_hybrid_large"))
