"""Layers of our own: as Keras computes them, but fast to train on a CPU."""

from typing import Any

import keras
from keras import ops

# What TensorFlow's fused kernel computes on; in all of them it keeps the statistics in float32.
_FUSED_DTYPES = ("float32", "bfloat16", "float16")


@keras.saving.register_keras_serializable(package="mobilenets")
class BatchNormReLU(keras.layers.BatchNormalization):
    """Batch normalization, then an activation.

    Computes ``activation(gamma * (x - mean) / sqrt(variance + epsilon) + beta)`` over the last axis.
    Variables (``gamma``, ``beta``, ``moving_mean``, ``moving_variance``), their shapes, the biased variance
    and the moving averages are those of `keras.layers.BatchNormalization`; weights go from one to the other.

    Keras writes batch normalization out of single operations, each of which reads and writes the whole
    tensor; with ReLU they take most of the time of an early block of a MobileNet on a CPU. On the TensorFlow
    backend training goes through TensorFlow's fused kernel and its gradient instead, which with ReLU take
    about a quarter of that time. Everything else (inference, JAX, PyTorch, float64, masks, renormalization,
    statistics synchronized over replicas, other axes or ranks) is the plain layer, so converters see the
    usual formula and fold it into the convolution before it.

    Input and output: a tensor of any shape, channels last; the fast path takes (batch, height, width,
    channels).

    Args:
        activation: what follows: None, "relu", "relu6", or another name or function known to Keras.
        epsilon: what is added to the variance, > 0.
        **kwargs: as for `keras.layers.BatchNormalization` (``momentum``, ``center``, ``scale``, ``name``).

    Raises:
        ValueError: Keras knows no activation of that name.
    """

    def __init__(self, activation: Any = None, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(epsilon=epsilon, **kwargs)
        self.activation = keras.activations.get(activation)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes by the batch's statistics when training (and trainable), else by the moving ones."""
        if training and self.trainable and mask is None and self._can_fuse(inputs):
            return self.activation(self._fused(inputs))
        return self.activation(super().call(inputs, training=training, mask=mask))

    def _can_fuse(self, inputs: Any) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and not (self.renorm or self.synchronized)
            and keras.backend.standardize_dtype(inputs.dtype) in _FUSED_DTYPES
        )

    def _fused(self, inputs: Any) -> Any:
        """Normalizes ``inputs`` (batch, height, width, channels) and moves the moving averages."""
        # The one `tf.` outside deployment: it pays, as benchmarks/train_throughput.py measures.
        import tensorflow as tf

        channels = self.moving_mean.shape
        gamma = ops.cast(self.gamma, "float32") if self.scale else tf.ones(channels)
        beta = ops.cast(self.beta, "float32") if self.center else tf.zeros(channels)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=tf.zeros(0),  # used in inference only
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel normalizes by the biased variance, as Keras does, but returns the unbiased one.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), "float32")
        variance *= tf.maximum(count - 1.0, 1.0) / tf.maximum(count, 1.0)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = ops.cast(moving, "float32")
            moving.assign(old * self.momentum + tf.stop_gradient(new) * (1.0 - self.momentum))
        return outputs

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer again."""
        return super().get_config() | {"activation": keras.activations.serialize(self.activation)}


@keras.saving.register_keras_serializable(package="mobilenets")
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Keras' depthwise convolution, channels last, with a fast path for JAX on a CPU.

    XLA computes a depthwise convolution on a CPU many times slower than the k * k multiplications and additions of
    shifted images that it is made of, which it fuses into one loop. Elsewhere this is the plain layer.

    Arguments, weights, input and output are those of `keras.layers.DepthwiseConv2D` with ``padding="same"``,
    ``depth_multiplier=1`` and ``data_format="channels_last"``.
    """

    def call(self, inputs: Any) -> Any:
        """Convolves (batch, height, width, channels); the output is (batch, ⌈height / stride⌉, …, channels)."""
        if keras.backend.backend() != "jax" or not _jax_on_cpu():
            return super().call(inputs)
        stride, dilation, kernel = self.strides[0], self.dilation_rate[0], self.kernel_size[0]
        sizes = [-(-side // stride) for side in inputs.shape[1:3]]
        reach = (kernel - 1) * dilation + 1
        margins = [
            max((size - 1) * stride + reach - side, 0) for size, side in zip(sizes, inputs.shape[1:3], strict=True)
        ]
        padded = ops.pad(inputs, [[0, 0], *([margin // 2, margin - margin // 2] for margin in margins), [0, 0]])
        spans = [(size - 1) * stride + 1 for size in sizes]
        weights = ops.convert_to_tensor(self.kernel)
        outputs = 0.0
        for row in range(0, kernel * dilation, dilation):
            for column in range(0, kernel * dilation, dilation):
                shifted = padded[:, row : row + spans[0] : stride, column : column + spans[1] : stride]
                outputs = outputs + shifted * weights[row // dilation, column // dilation, :, 0]
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs if self.activation is None else self.activation(outputs)


def _jax_on_cpu() -> bool:
    import jax

    return jax.default_backend() == "cpu"
