"""What differs between tasks, wherever their models are trained, compressed or measured alike."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mobilenets import card as cards
from mobilenets.architectures import AnyHead, Head, SegmentationHead, head_of
from mobilenets.data import ImageData, Split
from mobilenets.data.augment import Augment
from mobilenets.data.box_augment_sheet import augmented_sheet
from mobilenets.data.box_loader import BoxBatches, BoxEvaluationBatches
from mobilenets.data.boxes import BoxData, BoxSplit
from mobilenets.data.loader import Batches, EvaluationBatches
from mobilenets.data.mask_augment_sheet import augmented_mask_sheet
from mobilenets.data.mask_loader import MaskBatches, MaskEvaluationBatches
from mobilenets.data.masks import MaskData, MaskSplit
from mobilenets.errors import UserError
from mobilenets.evaluation import measure
from mobilenets.evaluation import segmenter as segmenters
from mobilenets.evaluation.detection import measure_boxes
from mobilenets.evaluation.detector import BATCH, evaluate_detector, found_in
from mobilenets.evaluation.evaluate import evaluate_model
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.evaluation.known import data_of
from mobilenets.evaluation.segmenter import evaluate_segmenter, tally
from mobilenets.models import keras
from mobilenets.training import fit_boxes, fit_masks
from mobilenets.training.box_batches import box_augment, box_batches
from mobilenets.training.fit import fit
from mobilenets.training.fit_boxes import fit_detector
from mobilenets.training.fit_masks import fit_segmenter
from mobilenets.training.loop import Result
from mobilenets.training.mask_batches import mask_augment, mask_batches
from mobilenets.training.optimizer import peak_rate
from mobilenets.training.settings import Settings

SHOWN = 16  # batches of images to train on, whose statistics a network gets; a classifier those of four times as many
LOOKED_AT = 512  # images of the training set that tell which channels matter
TOGETHER, FEWER = 64, 16  # of them a batch; fewer where the loss is one of pixels, whose logits fill the memory


class Kind(Protocol):
    """Models of one task, and their data. Wherever ``size`` is asked for, it is that of the images, in pixels.

    Attributes:
        score: the figure of the metrics that models are compared by, and that a file must not lose; ``val_`` and it
            that of an epoch.
        unused: what the card says of training that means nothing to such models.
        learned: what images of the data come with, in the words of people.
        data: what they are trained and evaluated on.
        head: a detector's or segmenter's, or None.
        fit: trains a model, as `mobilenets.training.fit.fit` does.
    """

    score: str
    unused: tuple[str, ...]
    learned: str

    @property
    def data(self) -> ImageData | BoxData | MaskData: ...

    @property
    def head(self) -> AnyHead | None: ...

    @property
    def fit(self) -> Callable[..., Result]: ...

    def tells(self, split: Any) -> bool:
        """Whether a part of the data holds anything to learn from, or to be measured by."""

    def rate(self, settings: Settings) -> float:
        """The learning rate from random weights where nobody names one."""

    def shown(self, settings: Settings, size: int) -> Iterator[np.ndarray]:
        """Some batches of images (batch, size, size, 3) to train on, whose statistics a network is to have."""

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

    score, unused, learned, head = "accuracy", (), "classes", None

    @property
    def fit(self) -> Callable[..., Result]:
        return partial(fit, teacher=self.teacher)

    def tells(self, split: Split) -> bool:
        return len(split) > 0

    def rate(self, settings: Settings) -> float:
        return peak_rate(replace(settings, learning_rate=None))

    def shown(self, settings: Settings, size: int) -> Iterator[np.ndarray]:
        # As they are, for so are those that it will see. The statistics of augmented ones left V1's networks on
        # Fashion-MNIST 0.08 to 0.22 points behind.
        settings = _fitting(settings, self.data)
        as_it_is = Augment(flip=False)  # which leaves out what is too little for a batch, too
        classes, images = len(self.data.classes), settings.batch_size
        batches = Batches(self.data.train, classes, size, images, seed=settings.seed, augment=as_it_is)
        return _some(batches.epoch(settings.epochs), 4 * SHOWN)

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
    """Detectors; attributes besides those of `Kind`:

    Attributes:
        refused: settings that mean nothing to them, and their options.
    """

    data: BoxData
    head: Head

    score, learned, fit = "ap", "objects", staticmethod(fit_detector)
    refused = fit_boxes.UNUSED
    unused = (*refused, "teacher")

    def rate(self, settings: Settings) -> float:
        return _dense_rate(settings, fit_boxes.usual_rate)

    def tells(self, split: BoxSplit) -> bool:
        return split.objects > 0

    def require(self) -> None:
        """Checks that there is something to learn and to measure on; raises UserError where not."""
        for split, purpose, advice in _parts(self.data):
            if not self.tells(split):
                raise UserError(f"{self.data.source}: no object is left to {purpose}; {advice}")

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

    def draw(self, path: Path, settings: Settings, size: int) -> None:
        """Draws some images as they are trained on, with what is told of them."""
        augmented_sheet(self.data, path, size, box_augment(self.data, settings), settings.seed)


@dataclass(frozen=True)
class Segmenters:
    """Segmenters; attributes as those of `Detectors`."""

    data: MaskData
    head: SegmentationHead

    score, learned, fit = "miou", "masks", staticmethod(fit_segmenter)
    refused = fit_masks.UNUSED
    unused = (*refused, "teacher")

    def rate(self, settings: Settings) -> float:
        return _dense_rate(settings, fit_masks.usual_rate)

    def tells(self, split: MaskSplit) -> bool:
        return bool(split.pixels[:, :-1].any())

    def require(self) -> None:
        """As that of `Detectors`."""
        for split, purpose, advice in _parts(self.data):
            if not self.tells(split):
                raise UserError(f"{self.data.source}: no pixel with a class is left to {purpose}; {advice}")
        if len(self.data.classes) < 2:
            raise UserError(f"{self.data.source}: has one class, so there is nothing to tell apart; mark a second one")

    def shown(self, settings: Settings, size: int) -> Iterator[np.ndarray]:
        return _some(mask_batches(self.data, _fitting(settings, self.data), size).epoch(settings.epochs))

    def looked_at(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        split = self.data.train.some(LOOKED_AT)
        return _whole(MaskBatches(split, size, min(FEWER, len(split)), seed=1).epoch(0))

    def measure(self, model: keras.Model, size: int) -> dict[str, Any]:
        batches = MaskEvaluationBatches(self.data.val, size, segmenters.BATCH)
        found = segmenters.found_in(predictor(model), batches, self.data.val)
        return tally(found, self.data.val, self.data.classes).metrics()

    def evaluate(self, model: keras.Model, out: Path, size: int) -> dict[str, Any]:
        return evaluate_segmenter(predictor(model), self.data, out, size)

    def draw(self, path: Path, settings: Settings, size: int) -> None:
        """As that of `Detectors`."""
        augmented_mask_sheet(self.data, path, size, mask_augment(self.data, settings), settings.seed)


def kind_of(card: dict[str, Any]) -> Kind:
    """The models of a card's task, with the data that it names.

    Raises:
        UserError: the data cannot be had.
    """
    if card["task"] == cards.DETECT:
        return Detectors(data_of(card), head_of(card))
    if card["task"] == cards.SEGMENT:
        return Segmenters(data_of(card), head_of(card))
    return Classifiers(data_of(card), cards.crop(card))


def dense(data: BoxData | MaskData, head: Head | SegmentationHead) -> Detectors | Segmenters:
    """Detectors or segmenters, as the data asks for."""
    return Segmenters(data, head) if isinstance(data, MaskData) else Detectors(data, head)


def _dense_rate(settings: Settings, sgd: Callable[[Settings], float]) -> float:
    """What is usual of a detector or a segmenter with SGD, and with other optimizers what is so of all."""
    return sgd(settings) if settings.optimizer == "sgd" else peak_rate(replace(settings, learning_rate=None))


def _parts(data: BoxData | MaskData) -> tuple[tuple[Any, str, str], ...]:
    return (
        (data.train, "train on", "take a --val-fraction below 1"),
        (data.val, "measure on", "take a larger --val-fraction"),
    )


def _fitting(settings: Settings, data: ImageData | BoxData | MaskData) -> Settings:
    return replace(settings, batch_size=min(settings.batch_size, len(data.train)))


def _some(batches: Iterator[tuple[np.ndarray, ...]], count: int = SHOWN) -> Iterator[np.ndarray]:
    return (images for images, *_ in islice(batches, count))


def _whole(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches that are as large as the first: another size would be compiled anew."""
    size = 0
    for images, told in batches:
        size = size or len(images)
        if len(images) == size:
            yield images, told
