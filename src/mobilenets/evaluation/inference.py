"""Running a classifier over a data set."""

from collections.abc import Callable

import numpy as np

from mobilenets.data import Split
from mobilenets.data.loader import evaluation_batches

Predict = Callable[[np.ndarray], np.ndarray]


def predictor(model) -> Predict:
    """A function from uint8 images (batch, height, width, 3) to probabilities (batch, classes), float32.

    It is compiled once per batch size.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        model.jit_compile = False  # XLA computes depthwise convolutions about eight times slower on a CPU
    return lambda images: np.asarray(model.predict_on_batch(images), np.float32)


def probabilities(predict: Predict, split: Split, size: int, batch_size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Runs ``predict`` over a split.

    Args:
        predict: takes uint8 images (batch, size, size, 3).
        split: what to run over.
        size: pixels.
        batch_size: every batch has it; the last one is filled up, so that nothing is compiled twice.

    Returns:
        Probabilities (images, classes), float32, and labels (images,), int64.
    """
    outputs, labels = [], []
    batch_size = min(batch_size, len(split))
    for images, truth in evaluation_batches(split, size, batch_size):
        missing = batch_size - len(images)
        if missing:
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
        outputs.append(predict(images)[: len(truth)])
        labels.append(truth)
    return np.concatenate(outputs), np.concatenate(labels)
