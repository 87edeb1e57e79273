"""What differs between classifiers and detectors of several widths and resolutions: data, figures and pictures."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mobilenets import card as cards
from mobilenets.data import ImageData
from mobilenets.data.box_loader import BoxEvaluationBatches
from mobilenets.data.boxes import BoxData
from mobilenets.data.loader import EvaluationBatches
from mobilenets.evaluation import measure
from mobilenets.evaluation.detection import measure_boxes
from mobilenets.evaluation.detector import BATCH, detection_data, evaluate_detector, found_in
from mobilenets.evaluation.evaluate import evaluate_model, evaluation_data
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.models import keras
from mobilenets.training.box_batches import box_batches
from mobilenets.training.fit import training_batches
from mobilenets.training.settings import Settings

BATCHES = 16  # of images to train on, whose statistics a network gets


class Kind(Protocol):
    """Models of one task, and their data.

    Attributes:
        score: the figure of the metrics that models are compared by.
        data: what they are trained and measured on.
    """

    score: str

    @property
    def data(self) -> ImageData | BoxData: ...

    def shown(self, settings: Settings, size: int) -> Iterator[np.ndarray]:
        """Some batches of images (batch, size, size, 3) as they are trained on, in an order that no epoch has."""

    def measure(self, model: keras.Model, size: int) -> dict[str, Any]:
        """The metrics of a model for images of ``size`` pixels on the evaluation set."""

    def evaluate(self, model: keras.Model, out: Path, size: int) -> dict[str, Any]:
        """The same, with ``out/pictures``."""


@dataclass(frozen=True)
class Classifiers:
    """Classifiers; see `Kind`."""

    data: ImageData

    score = "accuracy"

    def shown(self, settings: Settings, size: int) -> Iterator[np.ndarray]:
        settings = replace(_fitting(settings, self.data), mixup=0.0)
        return _some(training_batches(self.data, settings, size).epoch(settings.epochs))

    def measure(self, model: keras.Model, size: int) -> dict[str, Any]:
        found = probabilities(predictor(model), EvaluationBatches(self.data.val, size, BATCH))
        return measure(*found, self.data.classes)

    def evaluate(self, model: keras.Model, out: Path, size: int) -> dict[str, Any]:
        return evaluate_model(predictor(model), self.data, out, size)


@dataclass(frozen=True)
class Detectors:
    """Detectors; see `Kind`."""

    data: BoxData

    score = "ap"

    def shown(self, settings: Settings, size: int) -> Iterator[np.ndarray]:
        return _some(box_batches(self.data, _fitting(settings, self.data), size).epoch(settings.epochs))

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
    return Detectors(detection_data(card)) if card["task"] == cards.DETECT else Classifiers(evaluation_data(card))


def _fitting(settings: Settings, data: ImageData | BoxData) -> Settings:
    return replace(settings, batch_size=min(settings.batch_size, len(data.train)))


def _some(batches: Iterator[tuple[np.ndarray, ...]]) -> Iterator[np.ndarray]:
    return (images for images, *_ in islice(batches, BATCHES))
