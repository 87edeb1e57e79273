"""Layers of our own: as Keras computes them, but fast to train on a CPU."""

from typing import Any

import keras
from keras import ops

# What the fused kernels compute on; in all of them TensorFlow's keeps the statistics in float32.
_FUSED_DTYPES = {"tensorflow": ("float32", "bfloat16", "float16"), "torch": ("float32",)}


@keras.saving.register_keras_serializable(package="mobilenets")
class BatchNormReLU(keras.layers.BatchNormalization):
    """Batch normalization, then an activation.

    Computes ``activation(gamma * (x - mean) / sqrt(variance + epsilon) + beta)`` over the last axis.
    Variables (``gamma``, ``beta``, ``moving_mean``, ``moving_variance``), their shapes, the biased variance
    and the moving averages are those of `keras.layers.BatchNormalization`; weights go from one to the other.

    Keras writes batch normalization out of single operations, each of which reads and writes the whole
    tensor; with ReLU they take most of the time of an early block of a MobileNet on a CPU. On the TensorFlow
    and PyTorch backends training goes through their fused kernel and its gradient instead; TensorFlow's, with
    ReLU, takes about a quarter of that time. Everything else (inference, JAX, float64, masks, renormalization,
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
            len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and not (self.renorm or self.synchronized)
            and keras.backend.standardize_dtype(inputs.dtype) in _FUSED_DTYPES.get(keras.backend.backend(), ())
        )

    def _fused(self, inputs: Any) -> Any:
        """Normalizes ``inputs`` (batch, height, width, channels) and moves the moving averages."""
        channels = self.moving_mean.shape
        gamma = ops.cast(self.gamma, "float32") if self.scale else ops.ones(channels)
        beta = ops.cast(self.beta, "float32") if self.center else ops.zeros(channels)
        fused = self._fused_torch if keras.backend.backend() == "torch" else self._fused_tensorflow
        outputs, mean, variance = fused(inputs, gamma, beta)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = ops.cast(moving, "float32")
            moving.assign(old * self.momentum + ops.stop_gradient(new) * (1.0 - self.momentum))
        return outputs

    def _fused_torch(self, inputs: Any, gamma: Any, beta: Any) -> tuple[Any, Any, Any]:
        import torch

        # Channels last in memory, as PyTorch's kernels like it, though its shapes name them first.
        outputs, mean, scale = torch.native_batch_norm(
            inputs.permute(0, 3, 1, 2), gamma, beta, None, None, True, 0.0, self.epsilon
        )
        return outputs.permute(0, 2, 3, 1), mean, scale**-2 - self.epsilon

    def _fused_tensorflow(self, inputs: Any, gamma: Any, beta: Any) -> tuple[Any, Any, Any]:
        # The one `tf.` outside deployment: it pays, as benchmarks/train_throughput.py measures.
        import tensorflow as tf

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
        return outputs, mean, variance * tf.maximum(count - 1.0, 1.0) / tf.maximum(count, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer again."""
        return super().get_config() | {"activation": keras.activations.serialize(self.activation)}


@keras.saving.register_keras_serializable(package="mobilenets")
class Conv2D(keras.layers.Conv2D):
    """Keras' convolution, channels last, with a fast path for training 1x1 ones on a CPU.

    A convolution of one pixel is a product of matrices, and most of what a MobileNet computes is that. TensorFlow's
    gradient of it as a convolution takes several times as long on a CPU where images are small, for it multiplies
    image by image; XLA's is slower too. Elsewhere, and where nothing is trained, this is the plain layer, so that
    converters see a convolution.

    Arguments, weights, input and output are those of `keras.layers.Conv2D` with ``data_format="channels_last"``.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolves (batch, height, width, channels)."""
        if not (training and self.kernel_size == self.strides == (1, 1) and self.groups == 1 and _slow_on_cpu()):
            return super().call(inputs)
        outputs = pointwise_conv(inputs, ops.convert_to_tensor(self.kernel))
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs if self.activation is None else self.activation(outputs)


def pointwise_conv(inputs: Any, kernel: Any) -> Any:
    """Convolves (batch, height, width, channels) with a kernel (1, 1, channels, filters), as a product of matrices."""
    channels, filters = kernel.shape[2:]
    outputs = ops.matmul(ops.reshape(inputs, (-1, channels)), ops.reshape(kernel, (channels, filters)))
    return ops.reshape(outputs, (*ops.shape(inputs)[:3], filters))


@keras.saving.register_keras_serializable(package="mobilenets")
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Keras' depthwise convolution, channels last, with fast paths for JAX and TensorFlow on a CPU.

    XLA computes a depthwise convolution on a CPU many times slower than the k * k multiplications and additions of
    shifted images that it is made of, which it fuses into one loop. oneDNN, in TensorFlow, takes up to thirty times
    as long for the gradient of the kernel where an image is smaller than that and has yet to be padded; so it is
    padded before, and always where images of several sizes come in, as a condition in the graph would cost memory
    (230 MB, V1 at four widths) and saves no time. Elsewhere this is the plain layer.

    Arguments, weights, input and output are those of `keras.layers.DepthwiseConv2D` with ``depth_multiplier=1`` and
    ``data_format="channels_last"``.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolves (batch, height, width, channels)."""
        if not _slow_on_cpu():
            return super().call(inputs)
        if keras.backend.backend() == "jax":
            return self._convolved(inputs, self.strides[0], self.padding, self.dilation_rate[0])
        if not training or self.padding != "same" or self.dilation_rate[0] > 1:
            return super().call(inputs)
        height = inputs.shape[1]
        if height is None or height < self.kernel_size[0]:
            return self._padded_first(inputs)
        return super().call(inputs)

    def _padded_first(self, inputs: Any) -> Any:
        margins = [_margins(side, self.kernel_size[0], self.strides[0]) for side in ops.shape(inputs)[1:3]]
        return self._convolved(ops.pad(inputs, [(0, 0), *margins, (0, 0)]), self.strides[0], "valid")

    def _convolved(self, inputs: Any, *options: Any) -> Any:
        outputs = depthwise_conv(inputs, ops.convert_to_tensor(self.kernel)[..., 0], *options)
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs if self.activation is None else self.activation(outputs)


def _margins(side: Any, size: int, stride: int) -> tuple[Any, Any]:
    """Pixels before and after a side, that a kernel of ``size`` is padded with as ``same`` says."""
    margin = ops.maximum((-(-side // stride) - 1) * stride + size - side, 0)
    return margin // 2, margin - margin // 2


def depthwise_conv(inputs: Any, kernel: Any, stride: int = 1, padding: str = "same", dilation: int = 1) -> Any:
    """Convolves every channel with a kernel of its own.

    Args:
        inputs: (batch, height, width, channels).
        kernel: (k, k, channels).
        stride: in pixels.
        padding: ``same`` or ``valid``.
        dilation: distance of the kernel's taps in pixels.
    """
    if keras.backend.backend() != "jax" or not _jax_on_cpu():
        return ops.depthwise_conv(inputs, kernel[..., None], stride, padding, "channels_last", dilation)
    size = kernel.shape[0]
    reach = (size - 1) * dilation + 1
    sides = inputs.shape[1:3]
    if padding == "valid":
        sizes = [(side - reach) // stride + 1 for side in sides]
    else:
        sizes = [-(-side // stride) for side in sides]
    margins = [max((count - 1) * stride + reach - side, 0) for count, side in zip(sizes, sides, strict=True)]
    padded = ops.pad(inputs, [[0, 0], *([margin // 2, margin - margin // 2] for margin in margins), [0, 0]])
    spans = [(count - 1) * stride + 1 for count in sizes]
    outputs = 0.0
    for row in range(0, size * dilation, dilation):
        for column in range(0, size * dilation, dilation):
            shifted = padded[:, row : row + spans[0] : stride, column : column + spans[1] : stride]
            outputs = outputs + shifted * kernel[row // dilation, column // dilation]
    return outputs


@keras.saving.register_keras_serializable(package="mobilenets")
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a factor of its own that begins at 1e-5 (arXiv 2103.17239).

    Input and output: (…, channels).
    """

    def build(self, input_shape: Any) -> None:
        """Makes the factors, ``gamma``, shape (channels,)."""
        initial = keras.initializers.Constant(1e-5)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=initial, name="gamma")

    def call(self, inputs: Any) -> Any:
        """Scales ``inputs``."""
        return inputs * ops.cast(self.gamma, inputs.dtype)


@keras.saving.register_keras_serializable(package="mobilenets")
class MultiQueryAttention(keras.layers.Layer):
    """Attention of several queries a pixel over one key and one value a pixel (V4, arXiv 2404.10518).

    It has no weights; convolutions make what it reads.

    Args:
        heads: queries a pixel.
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads

    def call(self, inputs: list[Any]) -> Any:
        """Attends.

        Args:
            inputs: queries (batch, height, width, heads * d), keys (batch, h, w, d) and values (batch, h, w, e).

        Returns:
            (batch, height, width, heads * e).
        """
        return attend(*inputs, self.heads, (inputs[0].shape[-1] // self.heads) ** -0.5)

    def compute_output_shape(self, input_shape: list[Any]) -> Any:
        """Returns (batch, height, width, heads * e)."""
        queries, _, values = input_shape
        return (*queries[:3], self.heads * values[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer again."""
        return super().get_config() | {"heads": self.heads}


def attend(queries: Any, keys: Any, values: Any, heads: int, scale: float) -> Any:
    """What `MultiQueryAttention` computes; products of queries and keys count ``scale`` times."""
    height, width, channels = queries.shape[1:]
    # All heads share the keys, so that a head is just another query: one product instead of one a head.
    queries = ops.reshape(queries, (-1, height * width * heads, channels // heads))
    keys, values = (ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3])) for x in (keys, values))
    scores = ops.matmul(queries, ops.transpose(keys, (0, 2, 1))) * scale
    outputs = ops.matmul(ops.softmax(scores, axis=-1), values)
    return ops.reshape(outputs, (-1, height, width, heads * outputs.shape[-1]))


def _jax_on_cpu() -> bool:
    import jax

    return jax.default_backend() == "cpu"


def _slow_on_cpu() -> bool:
    """Whether this is a CPU, and a backend that is slow there at what could be done otherwise."""
    if keras.backend.backend() == "jax":
        return _jax_on_cpu()
    return keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu")
