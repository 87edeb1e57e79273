"""What differs between compressing classifiers and detectors: data, training, and the figure that must not be lost."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mobilenets import card as cards
from mobilenets.architectures import Head, head
from mobilenets.compression.repair import Labelled, LabelledBoxes, LabelledImages
from mobilenets.data import ImageData
from mobilenets.data.box_loader import BoxBatches
from mobilenets.data.boxes import BoxData
from mobilenets.data.loader import EvaluationBatches
from mobilenets.deployment.judges import ClassifierJudge, DetectorJudge, Judge
from mobilenets.errors import UserError
from mobilenets.evaluation.detector import detection_data, evaluate_detector, require_detector
from mobilenets.evaluation.evaluate import evaluate_model, evaluation_data, require_fit
from mobilenets.evaluation.inference import predictor
from mobilenets.models import keras
from mobilenets.models.saving import load_model
from mobilenets.training.detect import UNUSED, fit_detector, usual_rate
from mobilenets.training.distill import load_teacher
from mobilenets.training.fit import fit
from mobilenets.training.loop import Result
from mobilenets.training.optimizer import peak_rate
from mobilenets.training.settings import Settings

LABELLED = 512  # images of the training set that ways to calibrate are compared on
LOOKED_AT = 512  # likewise, that tell which channels matter
BATCH = 64  # images


class Kind(Protocol):
    """Models of one task, and their data.

    Attributes:
        score: the figure of the metrics that a file must not lose; ``val_`` and it that of an epoch.
        data: what the model was trained and is evaluated on.
        head: a detector's, or None.
        unused: what the card says of training that means nothing to such models.
        fit: trains a model, as `mobilenets.training.fit.fit` does.
    """

    score: str
    unused: tuple[str, ...]
    data: ImageData | BoxData
    head: Head | None

    @property
    def fit(self) -> Callable[..., Result]: ...

    def rate(self, settings: Settings) -> float:
        """The learning rate from random weights where nobody names one."""

    def judge(self) -> Judge:
        """Runs a model or a file over the evaluation set."""

    def labelled(self) -> Labelled:
        """Some images of the training set, to choose among ways to calibrate by."""

    def looked_at(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Some more of them in batches of one size, with what the loss is told of them."""

    def evaluate(self, model: keras.Model, out: Path) -> dict[str, Any]:
        """Measures a model on the evaluation set, and draws ``out/pictures``; returns the metrics."""


@dataclass(frozen=True)
class Classifiers:
    """Classifiers; attributes besides those of `Kind`:

    Attributes:
        size: pixels of the images.
        crop: share of an image's shorter side that is shown.
        teacher: of `mobilenets.training.distill.load_teacher`, to learn from, or None.
    """

    data: ImageData
    size: int
    crop: float
    teacher: keras.Model | None = None

    score, unused, head = "accuracy", (), None

    @property
    def fit(self) -> Callable[..., Result]:
        return partial(fit, teacher=self.teacher)

    def rate(self, settings: Settings) -> float:
        return peak_rate(replace(settings, learning_rate=None))

    def judge(self) -> Judge:
        return ClassifierJudge(self.data, self.size, self.crop)

    def labelled(self) -> Labelled:
        split = self.data.train.some(LABELLED, seed=1)
        return LabelledImages(EvaluationBatches(split, self.size, BATCH, crop=self.crop))

    def looked_at(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        split = self.data.train.some(LOOKED_AT)
        # In any other order than that of the folder, or a batch would hold one class.
        split = split.chosen(np.random.default_rng(1).permutation(len(split)))
        known = np.eye(len(self.data.classes), dtype=np.float32)
        for images, labels in _whole(EvaluationBatches(split, self.size, min(BATCH, len(split)))):
            yield images, known[labels]

    def evaluate(self, model: keras.Model, out: Path) -> dict[str, Any]:
        return evaluate_model(predictor(model), self.data, out, self.size, crop=self.crop)


@dataclass(frozen=True)
class Detectors:
    """Detectors; ``size`` is that of the images, in pixels."""

    data: BoxData
    size: int
    head: Head

    score, unused, fit = "ap", (*UNUSED, "teacher"), staticmethod(fit_detector)

    def rate(self, settings: Settings) -> float:
        return usual_rate(settings)

    def judge(self) -> Judge:
        return DetectorJudge(self.data, self.size)

    def labelled(self) -> Labelled:
        return LabelledBoxes(self.data.train.some(LABELLED, seed=1), self.data.classes, self.size)

    def looked_at(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        split = self.data.train.some(LOOKED_AT)
        return _whole(BoxBatches(split, self.size, min(BATCH, len(split)), seed=1).epoch(0))

    def evaluate(self, model: keras.Model, out: Path) -> dict[str, Any]:
        return evaluate_detector(predictor(model), self.data, out, self.size)


def _whole(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches that are as large as the first: another size would be compiled anew."""
    size = 0
    for images, told in batches:
        size = size or len(images)
        if len(images) == size:
            yield images, told


def opened(directory: Path, card: dict[str, Any], teacher: str | None = None) -> tuple[Kind, keras.Model]:
    """Loads a model that is to be compressed, with what it was trained on.

    Args:
        directory: a model directory.
        card: its card.
        teacher: a model directory to learn from, or None.

    Raises:
        UserError: the model, its data or the teacher is unusable, or there is nothing to train on.
    """
    size = card["input_shape"][0]
    if card["task"] == cards.DETECT:
        if teacher:
            raise UserError("--teacher is for classifiers; a detector learns from the boxes alone, so leave it out")
        kind: Kind = Detectors(detection_data(card), size, head(str(card.get("head"))))
        require, what = require_detector, "images with objects"
        enough = kind.data.train.objects and kind.data.val.objects
    else:
        kind = Classifiers(evaluation_data(card), size, cards.crop(card))
        require, what, enough = require_fit, "images", len(kind.data.train)
    if not enough:
        raise UserError(f"{directory}: its card names no {what} to train on; compression needs some")
    model = load_model(directory)
    require(model, card, directory)
    if teacher:
        kind = replace(kind, teacher=load_teacher(teacher, kind.data.classes, size))
    return kind, model
