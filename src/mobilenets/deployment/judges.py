"""What a file has to be as good at as the model, for each task."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mobilenets.data import ImageData
from mobilenets.data.box_loader import BoxEvaluationBatches
from mobilenets.data.boxes import BoxData
from mobilenets.data.loader import EvaluationBatches
from mobilenets.data.mask_loader import MaskEvaluationBatches
from mobilenets.data.masks import MaskData
from mobilenets.deployment.artifacts import check_boxes, check_maps, check_probabilities
from mobilenets.evaluation import measure, segmenter
from mobilenets.evaluation.detection import measure_boxes
from mobilenets.evaluation.detector import in_pixels, outputs_of
from mobilenets.evaluation.inference import Predict, probabilities
from mobilenets.evaluation.segmentation import Tally
from mobilenets.evaluation.suppression import LEAST, final_boxes

BATCH = 64  # images a call


class Judge(Protocol):
    """Runs a model or a file over an evaluation set.

    Attributes:
        classes: their names.
        score: the figure of the metrics that a file must not lose.
        together: images a call.
    """

    classes: tuple[str, ...]
    score: str
    together: int

    def run(self, predict: Predict) -> tuple[np.ndarray, dict[str, Any]]:
        """What it says of each image (images, …, classes), 0..1, and the metrics."""

    def said(self, outputs: np.ndarray) -> np.ndarray:
        """What outputs say of each image, (images, …, classes), 0..1."""

    def check(self, path: Path, outputs: np.ndarray) -> None:
        """Checks that outputs are what the task asks for; raises UserError where not."""


def checked(judge: Judge, path: Path, predict: Predict) -> Predict:
    """The same function, whose outputs are checked."""

    def run(images: np.ndarray) -> np.ndarray:
        outputs = predict(images)
        judge.check(path, outputs)
        return outputs

    return run


class ClassifierJudge:
    """Judges classifiers, by accuracy."""

    score, together = "accuracy", BATCH

    def __init__(self, data: ImageData, size: int, crop: float) -> None:
        self.classes = data.classes
        self._batches = EvaluationBatches(data.val, size, BATCH, crop=crop)

    def run(self, predict: Predict) -> tuple[np.ndarray, dict[str, Any]]:
        outputs, labels = probabilities(predict, self._batches)
        return outputs, measure(outputs, labels, self.classes)

    def said(self, outputs: np.ndarray) -> np.ndarray:
        return outputs

    def check(self, path: Path, outputs: np.ndarray) -> None:
        check_probabilities(path, outputs, len(self.classes))


class DetectorJudge:
    """Judges detectors, by AP; of an image they say how sure they are that each class is there."""

    score, together = "ap", BATCH

    def __init__(self, data: BoxData, size: int) -> None:
        self.classes = data.classes
        self._split = data.val
        self._batches = BoxEvaluationBatches(data.val, size, BATCH)

    def run(self, predict: Predict) -> tuple[np.ndarray, dict[str, Any]]:
        said, found = [], []
        for output, size in zip(outputs_of(predict, self._batches), self._split.sizes, strict=True):
            boxes = final_boxes(output)
            said.append(self._surest(boxes))
            found.append(in_pixels(boxes, size))
        return np.stack(said), measure_boxes(found, self._split, self.classes)

    def said(self, outputs: np.ndarray) -> np.ndarray:
        return np.stack([self._surest(final_boxes(output)) for output in outputs])

    def check(self, path: Path, outputs: np.ndarray) -> None:
        check_boxes(path, outputs, len(self.classes))

    def _surest(self, boxes: np.ndarray) -> np.ndarray:
        """The highest score of each class among boxes (n, 6), `LEAST` where nothing is reported."""
        found = np.full(len(self.classes), LEAST, np.float32)
        np.maximum.at(found, boxes[:, 5].astype(np.int64), boxes[:, 4])
        return found


class SegmenterJudge:
    """Judges segmenters, by mean intersection over union; of an image they say what each of some places shows."""

    score, together = "miou", segmenter.BATCH

    def __init__(self, data: MaskData, size: int) -> None:
        self.classes = data.classes
        self._split = data.val
        self._batches = MaskEvaluationBatches(data.val, size, segmenter.BATCH)

    def run(self, predict: Predict) -> tuple[np.ndarray, dict[str, Any]]:
        said, tally = [], Tally(self.classes)
        outputs = segmenter.outputs_of(predict, self._batches)
        for index, (output, size) in enumerate(zip(outputs, self._split.sizes.tolist(), strict=True)):
            said.append(segmenter.places(output, len(self.classes)))
            tally.add(self._split.mask(index), segmenter.class_map(output, *size))
        return np.stack(said), tally.metrics()

    def said(self, outputs: np.ndarray) -> np.ndarray:
        return np.stack([segmenter.places(output, len(self.classes)) for output in outputs])

    def check(self, path: Path, outputs: np.ndarray) -> None:
        check_maps(path, outputs, len(self.classes))


def judge_of(data: ImageData | BoxData | MaskData, size: int, crop: float) -> Judge:
    """Judges by a data set, with images of ``size`` pixels; ``crop`` is the share of a shorter side that is shown."""
    if isinstance(data, MaskData):
        return SegmenterJudge(data, size)
    return DetectorJudge(data, size) if isinstance(data, BoxData) else ClassifierJudge(data, size, crop)
