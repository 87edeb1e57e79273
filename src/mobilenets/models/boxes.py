"""Boxes as numbers that a network can learn, and back; all relative to the image, 0..1."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

# How much smaller the numbers of an offset are than what they change (SSD's variances).
CENTRE, SIZE = 0.1, 0.2
LARGEST = float(np.log(1000 / 16))  # of a logarithm that is learned, so that no exponential overflows (torchvision)

Levels = Sequence[tuple[int, int, Sequence[tuple[float, float]]]]  # height and width of each map, its anchors


def anchors_of(levels: Levels) -> np.ndarray:
    """The anchors of all maps, row by row, those of one location together.

    Args:
        levels: of each map its height and width, and (width, height) of its anchors.

    Returns:
        float32 (locations, 4): centre x, centre y, width, height.
    """
    found = []
    for height, width, sizes in levels:
        y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
        centres = np.stack([x, y], axis=-1)[:, :, None].repeat(len(sizes), axis=2)
        found.append(np.concatenate([centres, np.broadcast_to(sizes, centres.shape)], axis=-1).reshape(-1, 4))
    return np.concatenate(found).astype(np.float32)


def decode(encoding: str, numbers: Any, anchors: Any) -> Any:
    """What a network says -> boxes.

    Args:
        encoding: ``offsets``: of centre and logarithm of the size (SSD, arXiv 1512.02325, section 2.2); or
            ``distances``: logarithms of those to the four sides, in anchors (FCOS, arXiv 1904.01355, section 3.1).
        numbers: (…, locations, 4).
        anchors: (locations, 4), of `anchors_of`.

    Returns:
        (…, locations, 4): left, top, right, bottom, which may lie outside the image.
    """
    centre, size = anchors[:, :2], anchors[:, 2:]
    first, second = numbers[..., :2], numbers[..., 2:]
    if encoding == "distances":
        before, after = (ops.exp(ops.minimum(part, LARGEST)) * size for part in (first, second))
        return ops.concatenate([centre - before, centre + after], axis=-1)
    middle = centre + first * CENTRE * size
    half = ops.exp(ops.minimum(second * SIZE, LARGEST)) * size / 2
    return ops.concatenate([middle - half, middle + half], axis=-1)


def encode(boxes: Any, anchors: Any) -> Any:
    """Boxes (…, locations, 4) -> the ``offsets`` that `decode` turns into them."""
    centre, size = anchors[:, :2], anchors[:, 2:]
    middle, sides = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    # Rows that hold no object have no size either; nobody learns from what they give.
    logarithm = ops.log(ops.maximum(sides, 1e-6) / size)
    return ops.concatenate([(middle - centre) / size / CENTRE, logarithm / SIZE], axis=-1)


def boxes_and_scores(numbers: Any, logits: Any, anchors: np.ndarray, encoding: str, background: bool) -> Any:
    """What a detector says of each location -> its box and a score for each class, as `Detections` does.

    Args:
        numbers: (batch, locations, 4).
        logits: (batch, locations, classes, and one more with background).
        anchors: (locations, 4), of `anchors_of`.
        encoding: of `decode`.
        background: see `Detections`.

    Returns:
        (batch, locations, 4 + classes): left, top, right, bottom, 0..1 of the image, and a score a class, 0..1.
    """
    boxes = ops.clip(decode(encoding, numbers, ops.convert_to_tensor(anchors)), 0.0, 1.0)
    scores = ops.softmax(logits, axis=-1)[..., 1:] if background else ops.sigmoid(logits)
    return ops.concatenate([boxes, scores], axis=-1)


@keras.saving.register_keras_serializable(package="mobilenets")
class Detections(keras.layers.Layer):
    """What the maps of a detector say -> boxes and scores. It has no weights.

    Args:
        levels: see `anchors_of`.
        encoding: see `decode`.
        background: whether the classes exclude each other and the first is background (softmax), which is left out;
            else each has a probability of its own (sigmoid).
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(self, levels: Levels, encoding: str, background: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.levels, self.encoding, self.background = levels, encoding, background
        self.anchors = anchors_of(levels)

    def call(self, inputs: list[Any]) -> Any:
        """Decodes both of ``inputs``, the numbers that say where and the logits: see `boxes_and_scores`."""
        return boxes_and_scores(*inputs, self.anchors, self.encoding, self.background)

    def compute_output_shape(self, input_shape: list[Any]) -> Any:
        """Returns (batch, locations, 4 + classes)."""
        _, (*sides, classes) = input_shape
        return (*sides, 4 + classes - self.background)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that build the same layer again."""
        return super().get_config() | {
            "levels": self.levels,
            "encoding": self.encoding,
            "background": self.background,
        }
