"""What a segmenter is told of each pixel, and how far what it says is from that; all in tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mobilenets.data.masks import IGNORE, MaskSplit
from mobilenets.models import keras

ops = keras.ops
Loss = Callable[[Any, Any], Any]

RAREST = 1.02  # what is added to a class's share before its logarithm (ENet, arXiv 1606.02147, section 5.2)


def loss_of(classes: int, dice: float = 0.0, weights: np.ndarray | None = None) -> Loss:
    """The loss of a segmenter's logits.

    Cross-entropy is the mean over all pixels of the batch that are not ignored. Dice's loss (Milletari et al. 2016,
    arXiv 1606.04797, section 3) is 1 - 2 Σ p t / (Σ p + Σ t), over the batch, and its mean over the classes that occur
    in it; it does not care how large they are.

    Args:
        classes: how many.
        dice: its share in the loss, 0..1; cross-entropy has the rest.
        weights: (classes,), of each class's pixels in cross-entropy, or None where all count alike.

    Returns:
        A function of masks (batch, H, W), class indices or `mobilenets.data.masks.IGNORE`, and of logits (batch, h,
        w, classes), which are resized to the masks' size where they are smaller. It returns a loss an image, (batch,),
        whose mean is that of the batch.
    """

    def loss(masks: Any, logits: Any) -> Any:
        sides = masks.shape[1:3]
        logits = ops.cast(logits, "float32")
        if tuple(logits.shape[1:3]) != tuple(sides):
            logits = ops.image.resize(logits, sides, interpolation="bilinear", data_format="channels_last")
        labels = ops.cast(masks, "int32")
        known = ops.cast(ops.not_equal(labels, IGNORE), "float32")
        told = ops.one_hot(ops.where(known > 0, labels, 0), classes) * known[..., None]
        surprise = -ops.sum(told * ops.log_softmax(logits, axis=-1), axis=-1)  # (batch, H, W)
        counted = known if weights is None else ops.sum(told * ops.convert_to_tensor(weights, "float32"), axis=-1)
        images = ops.cast(ops.shape(masks)[0], "float32")
        wrong = ops.sum(surprise * counted, axis=(1, 2)) * images / ops.maximum(ops.sum(counted), 1.0)
        if not dice:
            return wrong
        said = ops.softmax(logits, axis=-1) * known[..., None]
        both, all_told = ops.sum(told * said, axis=(0, 1, 2)), ops.sum(told, axis=(0, 1, 2))
        score = 2 * both / ops.maximum(ops.sum(said, axis=(0, 1, 2)) + all_told, 1.0)
        present = ops.cast(all_told > 0, "float32")
        missed = 1 - ops.sum(score * present) / ops.maximum(ops.sum(present), 1.0)
        return (1 - dice) * wrong + dice * missed

    return loss


def class_weights(split: MaskSplit) -> np.ndarray:
    """Weights (classes,) that let rare classes count more, mean 1 over the pixels: 1 / log(1.02 + share of pixels).

    ENet (arXiv 1606.02147), section 5.2.
    """
    counts = split.pixels[:, :-1].sum(axis=0)
    shares = counts / max(1, counts.sum())
    weights = 1 / np.log(RAREST + shares)
    return (weights / max(1e-9, (weights * shares).sum())).astype(np.float32)
