"""Calibration that tries: what integers cost is mended without training where that helps, and measured either way."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mobilenets.compression.bias import correct_bias
from mobilenets.compression.equalize import equalize
from mobilenets.compression.qat import simulated
from mobilenets.compression.quantization import Quantization
from mobilenets.compression.ranges import ESTIMATORS, Seen, ranges_of
from mobilenets.compression.scheme import Ranges, integer_form
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.models import keras
from mobilenets.models.builder import logits_model
from mobilenets.models.graph import graph_of
from mobilenets.models.operations import Graph

# Two or three of some hundred images, most of which the model knows by heart: V2 on stamps got all 1,024 right with one
# way, 1,021 with another, and 70.9 and 71.9 % of those it had not seen.
TIE = 0.005
METHOD = "ptq"  # in the card: post-training quantization
Observe = Callable[[Graph, Iterable[np.ndarray]], Mapping[str, Seen]]
Batches = Iterable[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Trial:
    """One way to compute a model in integers.

    Attributes:
        estimator: of the ranges, of `mobilenets.compression.ranges.ESTIMATORS`.
        equalized: whether channels were evened out before.
        corrected: whether biases were corrected after.
        accuracy: in integers, simulated, on the labelled images, 0..1.
        error: mean square of the difference of the logits from those of the model as it came, in float32.
        chosen: whether it is the best.
    """

    estimator: str
    equalized: bool
    corrected: bool
    accuracy: float
    error: float
    chosen: bool = False


@dataclass(frozen=True)
class _Made:
    """A trial, and what it takes to have it again."""

    trial: Trial
    ranges: Ranges
    weights: list[np.ndarray]


def repair(
    model: keras.Model,
    images: Sequence[np.ndarray],
    labelled: Batches,
    observe: Observe,
    *,
    floats: Collection[str] = (),
    weight_bits: int = 8,
) -> tuple[Quantization, list[dict[str, Any]]]:
    """Finds how a model is best computed in integers, and changes its variables accordingly.

    Tries every estimator of ranges, for the model as it is and for one equalized and with biases corrected; then
    bias correction without equalization, and the reverse, where the logits were nearest. Of those that come within
    `TIE` of the highest accuracy the one with the smallest error of the logits wins; plain calibration, which is tried
    first, unless another is better. To be more accurate than the model in float32 is luck, and counts as being as
    accurate.

    Args:
        model: a trained classifier of `mobilenets.models.classifier`. Where equalization or bias correction win, its
            variables are changed.
        images: uint8 (height, width, channels), some hundred, to calibrate on.
        labelled: batches of images and labels to choose by, gone through more than once; not those that the outcome
            will be measured on.
        observe: looks at every output, `mobilenets.deployment.calibrate.observe`.
        floats: operations, or kinds of operations, computed in float32.
        weight_bits: 8 or 4.

    Returns:
        What the files need to know, and the trials, in the order they were made, ready for JSON. Metrics are those
        on ``labelled``.
    """
    before = model.get_weights()
    wanted, labels = probabilities(predictor(logits_model(model)), labelled)
    made: list[_Made] = []

    def attempt(seen: Mapping[str, Seen], estimator: str, equalized: bool, corrected: bool) -> None:
        ranges = ranges_of(seen, estimator)
        if corrected:
            correct_bias(model, images, ranges, floats, weight_bits)
        network = simulated(model, ranges, floats, weight_bits)
        logits, _ = probabilities(predictor(keras.Model(network.input, network.get_layer("logits").output)), labelled)
        accuracy = float((logits.argmax(axis=1) == labels).mean())
        error = float(np.square(logits - wanted).mean())
        made.append(_Made(Trial(estimator, equalized, corrected, accuracy, error), ranges, model.get_weights()))

    best_possible = float((wanted.argmax(axis=1) == labels).mean())
    seen = observe(integer_form(graph_of(model)), images)
    for estimator in ESTIMATORS:
        attempt(seen, estimator, False, False)
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
    highest = min(max(each.trial.accuracy for each in made), best_possible)
    equals = [each for each in made if each.trial.accuracy >= highest - TIE]
    best = min(equals, key=lambda each: each.trial.error)  # of equals the first
    model.set_weights(best.weights)
    metrics = {"accuracy": best.trial.accuracy, "images": len(labels)}
    rows = [asdict(each.trial) | {"chosen": each is best} for each in made]
    return Quantization(METHOD, best.ranges, tuple(sorted(floats)), weight_bits, metrics), rows


def _nearest(made: Sequence[_Made]) -> str:
    """The estimator of the trial whose logits were nearest to those in float."""
    return min(made, key=lambda each: each.trial.error).trial.estimator
