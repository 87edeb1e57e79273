"""Running a classifier over a data set."""

from collections.abc import Callable, Iterable

import numpy as np

Predict = Callable[[np.ndarray], np.ndarray]


def predictor(model) -> Predict:
    """A function from uint8 images (batch, height, width, 3) to probabilities (batch, classes), float32.

    It is compiled once per batch size.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        model.jit_compile = False  # XLA computes depthwise convolutions about eight times slower on a CPU
    return lambda images: np.asarray(model.predict_on_batch(images), np.float32)


def probabilities(predict: Predict, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Runs ``predict`` over batches.

    Args:
        predict: takes uint8 images (batch, size, size, 3).
        batches: of images and labels, as `mobilenets.data.loader.evaluation_batches` gives them. Those with fewer
            images than the first are filled up for ``predict``, so that nothing is compiled twice.

    Returns:
        Probabilities (images, classes), float32, and labels (images,), int64.
    """
    outputs, labels = [], []
    size = 0
    for images, truth in batches:
        size = size or len(images)
        if len(images) < size:
            images = np.concatenate([images, np.zeros((size - len(images), *images.shape[1:]), images.dtype)])
        outputs.append(predict(images)[: len(truth)])
        labels.append(truth)
    return np.concatenate(outputs), np.concatenate(labels)
