"""What differs between classifiers and detectors, wherever both are trained, compressed or measured alike."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mobilenets import card as cards
from mobilenets.architectures import Head, head
from mobilenets.data import ImageData
from mobilenets.data.box_loader import BoxBatches, BoxEvaluationBatches
from mobilenets.data.boxes import BoxData
from mobilenets.data.loader import EvaluationBatches
from mobilenets.evaluation import measure
from mobilenets.evaluation.detection import measure_boxes
from mobilenets.evaluation.detector import BATCH, detection_data, evaluate_detector, found_in
from mobilenets.evaluation.evaluate import evaluate_model, evaluation_data
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.models import keras
from mobilenets.training.box_batches import box_batches
from mobilenets.training.fit import fit, training_batches
from mobilenets.training.fit_boxes import UNUSED, fit_detector, usual_rate
from mobilenets.training.loop import Result
from mobilenets.training.optimizer import peak_rate
from mobilenets.training.settings import Settings

SHOWN = 16  # batches of images to train on, whose statistics a network gets
LOOKED_AT = 512  # images of the training set that tell which channels matter
TOGETHER = 64  # of them a batch


class Kind(Protocol):
    """Models of one task, and their data. Wherever ``size`` is asked for, it is that of the images, in pixels.

    Attributes:
        score: the figure of the metrics that models are compared by, and that a file must not lose; ``val_`` and it
            that of an epoch.
        unused: what the card says of training that means nothing to such models.
        data: what they are trained and evaluated on.
        head: a detector's, or None.
        fit: trains a model, as `mobilenets.training.fit.fit` does.
    """

    score: str
    unused: tuple[str, ...]

    @property
    def data(self) -> ImageData | BoxData: ...

    @property
    def head(self) -> Head | None: ...

    @property
    def fit(self) -> Callable[..., Result]: ...

    def rate(self, settings: Settings) -> float:
        """The learning rate from random weights where nobody names one."""

    def shown(self, settings: Settings, size: int) -> Iterator[np.ndarray]:
        """Some batches of images (batch, size, size, 3) as they are trained on, in an order that no epoch has."""

    def looked_at(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Some images of the training set in batches of one size, with what the loss is told of them."""

    def measure(self, model: keras.Model, size: int) -> dict[str, Any]:
        """The metrics of a model on the evaluation set."""

    def evaluate(self, model: keras.Model, out: Path, size: int) -> dict[str, Any]:
        """The same, with ``out/pictures``."""


@dataclass(frozen=True)
class Classifiers:
    """Classifiers; attributes besides those of `Kind`:

    Attributes:
        crop: share of an image's shorter side that is shown.
        teacher: of `mobilenets.training.distill.load_teacher`, to learn from, or None.
    """

    data: ImageData
    crop: float = 1.0
    teacher: keras.Model | None = None

    score, unused, head = "accuracy", (), None

    @property
    def fit(self) -> Callable[..., Result]:
        return partial(fit, teacher=self.teacher)

    def rate(self, settings: Settings) -> float:
        return peak_rate(replace(settings, learning_rate=None))

    def shown(self, settings: Settings, size: int) -> Iterator[np.ndarray]:
        settings = replace(_fitting(settings, self.data), mixup=0.0)
        return _some(training_batches(self.data, settings, size).epoch(settings.epochs))

    def looked_at(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        split = self.data.train.some(LOOKED_AT)
        # In any other order than that of the folder, or a batch would hold one class.
        split = split.chosen(np.random.default_rng(1).permutation(len(split)))
        known = np.eye(len(self.data.classes), dtype=np.float32)
        for images, labels in _whole(EvaluationBatches(split, size, min(TOGETHER, len(split)))):
            yield images, known[labels]

    def measure(self, model: keras.Model, size: int) -> dict[str, Any]:
        batches = EvaluationBatches(self.data.val, size, BATCH, crop=self.crop)
        return measure(*probabilities(predictor(model), batches), self.data.classes)

    def evaluate(self, model: keras.Model, out: Path, size: int) -> dict[str, Any]:
        return evaluate_model(predictor(model), self.data, out, size, crop=self.crop)


@dataclass(frozen=True)
class Detectors:
    """Detectors; see `Kind`."""

    data: BoxData
    head: Head

    score, unused, fit = "ap", (*UNUSED, "teacher"), staticmethod(fit_detector)

    def rate(self, settings: Settings) -> float:
        return usual_rate(settings)

    def shown(self, settings: Settings, size: int) -> Iterator[np.ndarray]:
        return _some(box_batches(self.data, _fitting(settings, self.data), size).epoch(settings.epochs))

    def looked_at(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        split = self.data.train.some(LOOKED_AT)
        return _whole(BoxBatches(split, size, min(TOGETHER, len(split)), seed=1).epoch(0))

    def measure(self, model: keras.Model, size: int) -> dict[str, Any]:
        split = self.data.val
        found = found_in(predictor(model), BoxEvaluationBatches(split, size, BATCH), split.sizes)
        return measure_boxes(found, split, self.data.classes)

    def evaluate(self, model: keras.Model, out: Path, size: int) -> dict[str, Any]:
        return evaluate_detector(predictor(model), self.data, out, size)


def kind_of(card: dict[str, Any]) -> Kind:
    """The models of a card's task, with the data that it names.

    Raises:
        UserError: the data cannot be had.
    """
    if card["task"] == cards.DETECT:
        return Detectors(detection_data(card), head(str(card.get("head"))))
    return Classifiers(evaluation_data(card), cards.crop(card))


def _fitting(settings: Settings, data: ImageData | BoxData) -> Settings:
    return replace(settings, batch_size=min(settings.batch_size, len(data.train)))


def _some(batches: Iterator[tuple[np.ndarray, ...]]) -> Iterator[np.ndarray]:
    return (images for images, *_ in islice(batches, SHOWN))


def _whole(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches that are as large as the first: another size would be compiled anew."""
    size = 0
    for images, told in batches:
        size = size or len(images)
        if len(images) == size:
            yield images, told
