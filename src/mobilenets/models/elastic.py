"""One set of weights, run at several widths and resolutions: a narrower network is the first channels of the widest.

Slimmable networks (arXiv 1812.08928, 1903.05134). The builder makes every sub-network as the ordinary model that it is;
of its variables, only the shapes are used to cut what it computes with out of the widest network's.
"""

from typing import Any

import numpy as np

from mobilenets.architectures import Network
from mobilenets.models import keras
from mobilenets.models.builder import classifier, logits_model

ops = keras.ops


class SubNetwork(keras.Model):
    """A narrower network that computes with the first channels of a wider one's weights, as they are at the time.

    It gives logits. Trained, it trains the wider one. The statistics of batch normalization are its own.

    Args:
        whole: the widest network's `mobilenets.models.builder.logits_model`.
        own: a classifier of the same table, none of its variables larger.
    """

    def __init__(self, whole: keras.Model, own: keras.Model) -> None:
        super().__init__(name=f"{own.name}_sub")
        self.whole = whole
        # Neither is a layer of this one: their variables are told below.
        self._parts = lambda: (own, logits_model(own))
        self.built = True

    @property
    def own(self) -> keras.Model:
        """The ordinary model: its statistics are used, its other variables are not."""
        return self._parts()[0]

    @property
    def trainable_variables(self) -> list:
        return self.whole.trainable_variables

    @property
    def non_trainable_variables(self) -> list:
        return self._parts()[1].non_trainable_variables

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Logits (batch, classes) of images (batch, height, width, channels), 0..255."""
        network = self._parts()[1]
        logits, _ = network.stateless_call(
            self.slices(), [variable.value for variable in network.non_trainable_variables], images, training=training
        )
        return logits

    def slices(self) -> list:
        """What this network computes with instead of its own trainable variables, in their order."""
        wide = self.whole.trainable_variables
        return [first(variable, like.shape) for variable, like in zip(wide, self.own.trainable_variables, strict=True)]

    def extract(self) -> keras.Model:
        """The ordinary model with copies of the weights; its statistics stay as they are."""
        for variable, value in zip(self.own.trainable_variables, self.slices(), strict=True):
            variable.assign(np.array(ops.convert_to_numpy(value)))
        return self.own


def first(variable: Any, shape: tuple[int, ...]) -> Any:
    """The first channels of a variable, in all its dimensions, as a tensor of this shape."""
    value = ops.convert_to_tensor(variable)
    if tuple(variable.shape) == tuple(shape):
        return value
    return value[tuple(slice(0, side) for side in shape)]


def sub_network(whole: keras.Model, network: Network, width_multiplier: float, size: int) -> SubNetwork:
    """A narrower network of a widest one's logits model."""
    classes = whole.output_shape[-1]
    own = classifier(network, (size, size, whole.input_shape[3]), classes, width_multiplier)
    return SubNetwork(whole, own)
