"""Calibration that tries: what integers cost is mended without training where that helps, and measured either way."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mobilenets.compression.bias import correct_bias
from mobilenets.compression.equalize import equalize
from mobilenets.compression.qat import simulated
from mobilenets.compression.quantization import Quantization
from mobilenets.compression.ranges import ESTIMATORS, Seen, ranges_of
from mobilenets.compression.scheme import Ranges, integer_form
from mobilenets.data import ImageData
from mobilenets.data.box_loader import BoxEvaluationBatches
from mobilenets.data.boxes import BoxData, BoxSplit
from mobilenets.data.loader import EvaluationBatches
from mobilenets.data.mask_loader import MaskEvaluationBatches
from mobilenets.data.masks import MaskData, MaskSplit
from mobilenets.evaluation import segmenter
from mobilenets.evaluation.chosen import TITLES
from mobilenets.evaluation.detection import measure_boxes
from mobilenets.evaluation.detector import BATCH, in_pixels, outputs_of
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.evaluation.segmentation import counts, mean_iou
from mobilenets.evaluation.suppression import final_boxes
from mobilenets.models import keras
from mobilenets.models.graph import graph_of
from mobilenets.models.operations import Graph

# Two or three of some hundred images, most of which the model knows by heart: V2 on stamps got all 1,024 right with one
# way, 1,021 with another, and 70.9 and 71.9 % of those it had not seen.
TIE = 0.005
LABELLED = 512  # images that ways to calibrate are compared on
METHOD = "ptq"  # in the card: post-training quantization
Observe = Callable[[Graph, Iterable[np.ndarray]], Mapping[str, Seen]]
Batches = Iterable[tuple[np.ndarray, np.ndarray]]


class Labelled(Protocol):
    """Labelled images that ways to calibrate are compared on; not those that the outcome will be measured on.

    Attributes:
        score: what the figure is called, the higher the better.
    """

    score: str

    def __call__(self, model: keras.Model) -> tuple[float, np.ndarray]:
        """The figure of a model, 0..1, and what it gives for each image, (images, ...)."""


class LabelledImages:
    """Images of classes: accuracy, and logits.

    Args:
        batches: of images and labels, gone through more than once.
    """

    score = "accuracy"

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __call__(self, model: keras.Model) -> tuple[float, np.ndarray]:
        network = keras.Model(model.input, model.get_layer("logits").output)
        logits, labels = probabilities(predictor(network), self._batches)
        return float((logits.argmax(axis=1) == labels).mean()), logits


class LabelledBoxes:
    """Images with boxes: AP, and boxes and scores.

    Args:
        split: the images and their objects.
        classes: their names.
        size: pixels of the images as the model takes them.
    """

    score = "ap"

    def __init__(self, split: BoxSplit, classes: Sequence[str], size: int) -> None:
        self._split, self._classes = split, classes
        self._batches = BoxEvaluationBatches(split, size, BATCH)

    def __call__(self, model: keras.Model) -> tuple[float, np.ndarray]:
        outputs = np.stack(list(outputs_of(predictor(model), self._batches)))
        sizes = self._split.sizes
        found = [in_pixels(final_boxes(output), size) for output, size in zip(outputs, sizes, strict=True)]
        return measure_boxes(found, self._split, self._classes)["ap"] or 0.0, outputs  # None without any object


class LabelledMasks:
    """Images with masks: mean intersection over union at the model's size, and probabilities (`segmenter.places`).

    Args:
        split: the images and their masks.
        classes: how many.
        size: pixels of the images as the model takes them.
    """

    score = "miou"

    def __init__(self, split: MaskSplit, classes: int, size: int) -> None:
        self._classes = classes
        self._batches = MaskEvaluationBatches(split, size, segmenter.BATCH)

    def __call__(self, model: keras.Model) -> tuple[float, np.ndarray]:
        counted, said = np.zeros((3, self._classes), np.int64), []
        masks = (mask for _, masks in self._batches for mask in masks)
        for output, mask in zip(segmenter.outputs_of(predictor(model), self._batches), masks, strict=True):
            said.append(segmenter.places(output, self._classes))
            counted += counts(mask, segmenter.class_map(output, *mask.shape[::-1]), self._classes)
        return mean_iou(*counted) or 0.0, np.stack(said)  # None where every pixel is ignored


def labelled(data: ImageData | BoxData | MaskData, size: int, crop: float) -> Labelled:
    """Images of the training set, of ``size`` pixels; ``crop`` is the share of a shorter side that is shown."""
    split = data.train.some(LABELLED, seed=1)
    if isinstance(data, MaskData):
        return LabelledMasks(split, len(data.classes), size)
    if isinstance(data, BoxData):
        return LabelledBoxes(split, data.classes, size)
    return LabelledImages(EvaluationBatches(split, size, BATCH, crop=crop))


@dataclass(frozen=True)
class Trial:
    """One way to compute a model in integers.

    Attributes:
        estimator: of the ranges, of `mobilenets.compression.ranges.ESTIMATORS`.
        equalized: whether channels were evened out before.
        corrected: whether biases were corrected after.
        score: in integers, simulated, on the labelled images, 0..1.
        error: mean square of the difference of what it gives from what the model gave as it came, in float32.
    """

    estimator: str
    equalized: bool
    corrected: bool
    score: float
    error: float

    def __str__(self) -> str:
        also = [text for text, done in (("equalized", self.equalized), ("biases corrected", self.corrected)) if done]
        return ", ".join([self.estimator, *also])


@dataclass(frozen=True)
class _Made:
    """A trial, and what it takes to have it again."""

    trial: Trial
    ranges: Ranges
    weights: list[np.ndarray]


def repair(
    model: keras.Model,
    images: Sequence[np.ndarray],
    labelled: Labelled,
    observe: Observe,
    *,
    mend: bool = True,
    floats: Collection[str] = (),
    weight_bits: int = 8,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Quantization, list[dict[str, Any]]]:
    """Finds how a model is best computed in integers, and changes its variables accordingly.

    Tries every estimator of ranges, for the model as it is and for one equalized and with biases corrected; then
    bias correction without equalization, and the reverse, where the outputs were nearest. Of those that come within
    `TIE` of the highest score the one with the smallest error of the outputs wins; plain calibration, which is tried
    first, unless another is better. To score higher than the model in float32 is luck, and counts as scoring as high.

    Args:
        model: a trained model of `mobilenets.models.tasks.built`. Where equalization or bias correction win, its
            variables are changed.
        images: uint8 (height, width, channels), some hundred, to calibrate on.
        labelled: `LabelledImages`, `LabelledBoxes` or `LabelledMasks`, to choose by.
        observe: looks at every output, `mobilenets.deployment.calibrate.observe`.
        mend: whether channels may be equalized and biases corrected; without, only the ranges are chosen.
        floats: operations, or kinds of operations, computed in float32.
        weight_bits: of `mobilenets.compression.scheme.make_scheme`.
        say: called with a line for each trial, for one of a detector takes a minute, and for the outcome.

    Returns:
        What the files need to know, and the trials, in the order they were made, ready for JSON. Metrics are those
        on ``labelled``.
    """
    before = model.get_weights()
    best_possible, wanted = labelled(model)
    title = TITLES.get(labelled.score, labelled.score)
    say(f"ways to calibrate, on {len(wanted)} images (float32: {title} {best_possible:.2%}):")
    made: list[_Made] = []

    def attempt(seen: Mapping[str, Seen], estimator: str, equalized: bool, corrected: bool) -> None:
        ranges = ranges_of(seen, estimator)
        if corrected:
            correct_bias(model, images, ranges, floats, weight_bits)
        score, outputs = labelled(simulated(model, ranges, floats, weight_bits))
        error = float(np.square(outputs - wanted).mean())
        made.append(_Made(Trial(estimator, equalized, corrected, score, error), ranges, model.get_weights()))
        say(f"  {title} {score:7.2%}  {made[-1].trial}")

    seen = observe(integer_form(graph_of(model)), images)
    for estimator in ESTIMATORS:
        attempt(seen, estimator, False, False)
    if mend:
        attempt(seen, _nearest(made), False, True)
        model.set_weights(before)
        equalize(model, seen, floats, weight_bits)
        equalized = model.get_weights()
        seen = observe(integer_form(graph_of(model)), images)
        tried = len(made)
        for estimator in ESTIMATORS:
            model.set_weights(equalized)
            attempt(seen, estimator, True, True)
        model.set_weights(equalized)
        attempt(seen, _nearest(made[tried:]), True, False)
    highest = min(max(each.trial.score for each in made), best_possible)
    equals = [each for each in made if each.trial.score >= highest - TIE]
    best = min(equals, key=lambda each: each.trial.error)  # of equals the first
    model.set_weights(best.weights)
    say(f"taken: {best.trial}")
    metrics = {labelled.score: best.trial.score, "images": len(wanted)}
    rows = [
        {
            "estimator": each.trial.estimator,
            "equalized": each.trial.equalized,
            "corrected": each.trial.corrected,
            labelled.score: each.trial.score,
            "error": each.trial.error,
            "chosen": each is best,
        }
        for each in made
    ]
    return Quantization(METHOD, best.ranges, tuple(sorted(floats)), weight_bits, metrics), rows


def _nearest(made: Sequence[_Made]) -> str:
    """The estimator of the trial whose outputs were nearest to those in float."""
    return min(made, key=lambda each: each.trial.error).trial.estimator
