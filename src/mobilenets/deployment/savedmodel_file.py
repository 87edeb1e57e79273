"""A graph as a TensorFlow SavedModel. Its precision is that of the stored weights; TensorFlow computes in float32."""

from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.deployment import savedmodel_boxes
from mobilenets.errors import UserError
from mobilenets.models.operations import IMAGE, LINEAR, Graph, Op
from mobilenets.quiet import quiet


def write_savedmodel(
    graph: Graph, path: Path | str, *, input_dtype: str = "uint8", batch: int | None = None, precision: str = "float32"
) -> None:
    """Writes a SavedModel's directory, on any backend of Keras.

    Args:
        graph: what to write.
        path: the directory.
        input_dtype: ``uint8`` or ``float32``; pixel values 0..255 either way.
        batch: images a call; None leaves it to the caller.
        precision: that weights are stored in: ``float32``, ``float16`` or ``int8``, one scale for each output channel.

    Raises:
        UserError: the directory cannot be written.
    """
    import tensorflow as tf

    class Model(tf.Module):
        """What a SavedModel keeps: the stored weights and one function."""

        def __init__(self) -> None:
            super().__init__()
            self.stored = {
                op.name: [tf.Variable(values, trainable=False) for values in _stored(op, precision)]
                for op in graph.ops
                if op.kernel is not None or op.bias is not None
            }

        @tf.function(input_signature=[tf.TensorSpec((batch, *graph.input_shape), input_dtype, name=IMAGE)])
        def __call__(self, image: Any) -> dict[str, Any]:
            values = {IMAGE: tf.cast(image, tf.float32)}
            for op in graph.ops:
                weights = _restored(tf, self.stored.get(op.name, []))
                inputs = [values[name] for name in op.inputs]
                values[op.name] = _activate(tf, op.activation, _compute(tf, op, weights, inputs))
            return {graph.output.name: values[graph.output.name]}

    with quiet():
        model = Model()
        try:
            tf.saved_model.save(model, str(path), signatures=model.__call__.get_concrete_function())
        except tf.errors.OpError as error:  # of the disk, among others
            raise UserError(f"{path}: cannot be written ({(error.message or type(error).__name__)[:160]})") from error


def _stored(op: Op, precision: str) -> list[np.ndarray]:
    """Kernel, bias, and the scales of the kernel's channels where it is in integers."""
    bias = np.zeros(op.shape[-1], np.float32) if op.bias is None else op.bias
    kernel = np.ones(op.shape[-1], np.float32) if op.kernel is None else op.kernel
    if precision == "float16":
        return [kernel.astype(np.float16), bias.astype(np.float16)]
    if precision == "int8" and op.kind in LINEAR:
        scale = (np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1))) / 127).clip(1e-12)
        return [np.rint(kernel / scale).astype(np.int8), bias, scale.astype(np.float32)]
    return [kernel, bias]


def _restored(tf: Any, stored: list[Any]) -> list[Any]:
    kernel_and_bias = [tf.cast(value, tf.float32) for value in stored[:2]]
    if len(stored) == 3:
        kernel_and_bias[0] *= stored[2]
    return kernel_and_bias


def _compute(tf: Any, op: Op, weights: list[Any], inputs: list[Any]) -> Any:
    x = inputs[0]
    if op.kind in ("conv", "depthwise"):
        top, bottom, left, right = op.margins
        margins = [[0, 0], [top, bottom], [left, right], [0, 0]] if any(op.margins) else "VALID"
        kernel, bias = weights
        if op.kind == "conv":
            return tf.nn.conv2d(x, kernel, op.stride, margins, dilations=op.dilation) + bias
        if any(op.margins):
            x = tf.pad(x, margins)
        strides, kernel = [1, op.stride, op.stride, 1], kernel[..., None]
        return tf.nn.depthwise_conv2d(x, kernel, strides, "VALID", dilations=[op.dilation] * 2) + bias
    if op.kind == "max_pool":
        top, bottom, left, right = op.margins
        x = tf.pad(x, [[0, 0], [top, bottom], [left, right], [0, 0]], constant_values=x.dtype.min)
        return tf.nn.max_pool2d(x, op.size, op.stride, "VALID")
    if op.kind == "attention":
        return _attention(tf, op, *inputs)
    if op.kind in savedmodel_boxes.COMPUTE:
        return savedmodel_boxes.COMPUTE[op.kind](tf, op, inputs)
    return {
        "dense": lambda: tf.linalg.matmul(x, weights[0]) + weights[1],
        "affine": lambda: x * weights[0] + weights[1],
        "add": lambda: inputs[0] + inputs[1],
        "multiply": lambda: inputs[0] * inputs[1],
        "mean": lambda: tf.reduce_mean(x, [1, 2], keepdims=len(op.shape) == 3),
        "flatten": lambda: tf.reshape(x, [-1, *op.shape]),
        "softmax": lambda: tf.nn.softmax(x),
        "argmax": lambda: tf.cast(tf.argmax(x, axis=-1), tf.uint8),
        "resize": lambda: tf.image.resize(x, op.shape[:2]),
        "activation": lambda: x,
    }[op.kind]()


def _attention(tf: Any, op: Op, queries: Any, keys: Any, values: Any) -> Any:
    """softmax(queries · keys) · values, all heads as rows of one product: they share keys and values."""
    queries = tf.reshape(queries, [-1, queries.shape[1] * queries.shape[2] * op.heads, queries.shape[3] // op.heads])
    keys, values = (tf.reshape(x, [-1, x.shape[1] * x.shape[2], x.shape[3]]) for x in (keys, values))
    mixed = tf.linalg.matmul(tf.nn.softmax(tf.linalg.matmul(queries, keys, transpose_b=True)), values)
    return tf.reshape(mixed, [-1, *op.shape])


def _activate(tf: Any, activation: str | None, x: Any) -> Any:
    if activation is None:
        return x
    return {
        "relu": tf.nn.relu,
        "relu6": tf.nn.relu6,
        "hard_swish": lambda x: x * tf.nn.relu6(x + 3) / 6,
        "hard_sigmoid": lambda x: tf.nn.relu6(x + 3) / 6,
        "gelu": tf.nn.gelu,
        "sigmoid": tf.nn.sigmoid,
    }[activation](x)
