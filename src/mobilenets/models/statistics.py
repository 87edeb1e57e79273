"""Statistics of batch normalization: computed anew where a network's channels have changed, or left alone."""

from collections.abc import Iterable

import numpy as np

from mobilenets.models import keras


class FixedMode(keras.Model):
    """A model that always computes as in training, or never does, whatever it is asked.

    With ``training`` false its gradients are those of the network as it is used. With statistics of the batch they
    would not tell how much a channel matters that a depthwise convolution and another batch normalization follow:
    whatever it is multiplied by, the normalization takes out again.

    Args:
        model: built; shares its variables.
        training: the mode.
    """

    def __init__(self, model: keras.Model, training: bool) -> None:
        super().__init__(name=f"{model.name}_{'training' if training else 'inference'}")
        self.model, self._mode = model, training
        self.jit_compile = keras.backend.backend() == "jax"
        self.built = True

    def call(self, images: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """Computes in the mode, not in the one that is asked for."""
        return self.model(images, training=self._mode)


def recalibrate(model: keras.Model, batches: Iterable[np.ndarray]) -> None:
    """Sets the moving statistics of batch normalization to the mean of those of some batches.

    Without any training this brings back most of what removing channels, or slicing a network, takes away, as for
    slimmable networks (arXiv 1903.05134, "post-statistics of batch normalization").

    Args:
        model: is changed.
        batches: images (batch, height, width, channels), 0..255, all of one size.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    moving = [variable for layer in norms for variable in (layer.moving_mean, layer.moving_variance)]
    momenta = [layer.momentum for layer in norms]
    network, sums, count = FixedMode(model, training=True), [0.0] * len(moving), 0
    try:
        for layer in norms:
            layer.momentum = 0.0  # what moves, then, holds the last batch's own
        for images in batches:
            network.predict_on_batch(images)
            sums = [total + keras.ops.convert_to_numpy(value) for total, value in zip(sums, moving, strict=True)]
            count += 1
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
    for variable, total in zip(moving, sums, strict=True):
        if count:
            variable.assign(total / count)
