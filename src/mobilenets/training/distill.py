"""Knowledge distillation: a network learns what another one says of each image, not its label alone."""

from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.card import read_classifier
from mobilenets.data.names import some
from mobilenets.data.resizing import resize_all
from mobilenets.errors import UserError
from mobilenets.evaluation.inference import predictor
from mobilenets.models import keras
from mobilenets.models.builder import logits_model
from mobilenets.models.saving import load_model
from mobilenets.training.settings import Settings

ops = keras.ops


def load_teacher(path: Path | str, classes: tuple[str, ...]) -> keras.Model:
    """Loads a model to learn from; it may be of any network, width and resolution.

    Args:
        path: a model directory.
        classes: that the student tells apart.

    Returns:
        What `mobilenets.models.builder.logits_model` makes of it, with features.

    Raises:
        UserError: it is unusable, or tells other classes apart.
    """
    found = read_classifier(path, "--teacher")["classes"]
    if tuple(found) != tuple(classes):
        raise UserError(
            f"--teacher {path}: tells other classes apart ({some(found)}) than the data has ({some(classes)})"
        )
    return logits_model(load_model(path), features=True)


def require_teacher(settings: Settings, teacher: Path | str | None) -> None:
    """Checks that settings which only a teacher gives a meaning are not taken and ignored.

    Raises:
        UserError: names the first of them.
    """
    for name in ("temperature", "teaching", "hint"):
        if not teacher and getattr(settings, name) != getattr(Settings(), name):
            raise UserError(f"--{name} is about what a teacher says, so it needs --teacher")


class Lesson:
    """What a student is told of each image, and how well it has learned it.

    A row of what it is told holds the label, the teacher's logits and the teacher's features; a row of what it says
    its own logits and, with a ``hint``, its features.

    The loss is (1 - ``teaching``) times the cross-entropy with the label, plus ``teaching`` times T² times the
    divergence of its probabilities from the teacher's, both at temperature T (arXiv 1503.02531, section 2.1), plus
    ``hint`` times the mean squared difference of how alike the images of a batch look to the two (arXiv 1907.09682,
    equation 4), which asks nothing of the number of features.

    Args:
        teacher: of `load_teacher`.
        classes: how many.
        temperature: T > 0.
        teaching: share of the teacher's say, 0..1.
        hint: weight of the features, 0 for none.

    Attributes:
        width: length of a row of what it is told.
        size: pixels of the side of the images that the teacher looks at.
    """

    def __init__(self, teacher: keras.Model, classes: int, temperature: float, teaching: float, hint: float) -> None:
        self._ask = predictor(teacher)
        self.classes, self.temperature, self.teaching, self.hint = classes, temperature, teaching, hint
        self.width, self.size = classes + teacher.output_shape[-1], teacher.input_shape[1]

    def told(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Labels (batch, classes) with what the teacher says of the images, which may be larger, behind them."""
        return np.concatenate([labels, self._ask(resize_all(images, self.size))], axis=1, dtype=np.float32)

    def loss(self, told: Any, said: Any) -> Any:
        """Of each image, (batch,)."""
        count = self.classes
        labels, theirs, their_features = told[:, :count], told[:, count : 2 * count], told[:, 2 * count :]
        logits, features = said[:, :count], said[:, count:]
        loss = (1 - self.teaching) * keras.losses.categorical_crossentropy(labels, logits, from_logits=True)
        wanted, given = (ops.log_softmax(values / self.temperature) for values in (theirs, logits))
        divergence = ops.sum(ops.exp(wanted) * (wanted - given), axis=-1)
        loss = loss + self.teaching * self.temperature**2 * divergence
        if self.hint:
            loss = loss + self.hint * ops.mean((_alike(features) - _alike(their_features)) ** 2, axis=-1)
        return loss

    def accuracy(self, told: Any, said: Any) -> Any:
        """Whether each image's class is right, (batch,)."""
        return keras.metrics.categorical_accuracy(told[:, : self.classes], said[:, : self.classes])


def _alike(features: Any) -> Any:
    """How alike the images of a batch look: products of their features, (batch, batch), each row of length 1."""
    products = ops.matmul(features, ops.transpose(features))
    # Not by `norm`, whose gradient is no number where a row is 0.
    return products / ops.sqrt(ops.maximum(ops.sum(products**2, axis=-1, keepdims=True), 1e-24))
