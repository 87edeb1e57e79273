"""Whether a written file is as good as the model: run in its own runtime, a process of its own, and compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.deployment.artifacts import parts_of
from mobilenets.deployment.judges import Judge, checked
from mobilenets.deployment.latency import measure_latency
from mobilenets.deployment.targets import TARGETS, Variant
from mobilenets.deployment.worker import Worker
from mobilenets.errors import UserError
from mobilenets.evaluation.inference import Predict, predictor

COLOURS = 64  # images
# Rounding apart a float32 file computes what the model does, and one with weights in half precision nearly so; a file
# that differs more is broken, even if it happens to be as accurate.
CLOSE = {"float32": 1e-3, "float16": 0.1}
# A file that gives classes says nothing else, but at a few places, where two of them are as likely.
OTHER = {"float32": 1e-3, "float16": 0.02}


@dataclass(frozen=True)
class Truth:
    """What files are compared with: the Keras model on the evaluation set, and on colours.

    Attributes:
        judge: of the task, which knows the evaluation set.
        expected: what the model says of its images (images, …, classes): probabilities; of a detector how sure it is
            that each class is there; of a segmenter the probabilities at some places, or 1 for the class it names.
        metrics: of the model.
        colours: uint8 (images, height, width, 3).
        expected_colours: what the model says of them.
        expected_swapped: the same with red and blue swapped.
    """

    judge: Judge
    expected: np.ndarray
    metrics: dict[str, Any]
    colours: np.ndarray
    expected_colours: np.ndarray
    expected_swapped: np.ndarray


def truth_of(model: Any, judge: Judge, class_map: bool = False) -> Truth:
    """Runs the Keras model over an evaluation set, and over colours; with ``class_map`` for files that give classes."""
    predict = predictor(model)
    if class_map:
        probabilities = predict

        def predict(images: np.ndarray) -> np.ndarray:
            return probabilities(images).argmax(axis=-1).astype(np.uint8)

    expected, metrics = judge.run(predict)
    # Whole batches, as those of the evaluation set, for which the model has been compiled.
    count = min(COLOURS, len(expected))
    colours = _colours(count - count % judge.together if count > judge.together else count, model.input_shape[1])
    swapped = _said(judge, predict, np.ascontiguousarray(colours[..., ::-1]))
    return Truth(judge, expected, metrics, colours, _said(judge, predict, colours), swapped)


def _said(judge: Judge, predict: Predict, images: np.ndarray) -> np.ndarray:
    """What is said of images, a batch of the judge's at a time: all maps of a segmenter would be gigabytes."""
    starts = range(0, len(images), judge.together)
    return np.concatenate([judge.said(predict(images[start : start + judge.together])) for start in starts])


def _colours(count: int, size: int) -> np.ndarray:
    """Coloured squares with noise, the full range of a byte: channels in another order change each of them.

    The images of an evaluation set may be grey, and then say nothing about the order.
    """
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 206, (count, 4, 4, 3)).repeat(-(-size // 4), axis=1).repeat(-(-size // 4), axis=2)
    return (squares[:, :size, :size] + rng.integers(0, 50, (count, size, size, 3))).astype(np.uint8)


def measured(path: Path, variant: Variant, truth: Truth, threads: int | None) -> dict[str, Any]:
    """What is measured on a file: the part of its entry in the card that does not say which file it is.

    Raises:
        UserError: it cannot be run, or does not give what the task asks for.
    """
    kind = TARGETS[variant.target]
    with Worker(path, kind.runtime, threads) as worker:
        about = worker.about
        if tuple(about["input_shape"]) != truth.colours.shape[1:] or about["input_dtype"] != variant.input_dtype:
            raise UserError(f"it takes {about['input_dtype']} images of shape {tuple(about['input_shape'])}")
        run = checked(truth.judge, path, worker)
        said, metrics = truth.judge.run(run)
        colours = _said(truth.judge, run, truth.colours)
        comparison = compare(truth.expected, said) | {
            "colours_max_difference": float(np.abs(truth.expected_colours - colours).max()),
            "colours_mean_difference": float(np.abs(truth.expected_colours - colours).mean()),
            "swapped_mean_difference": float(np.abs(truth.expected_swapped - colours).mean()),
        }
        return {
            "target": variant.target,
            "runtime": kind.runtime,
            "precision": variant.precision,
            "input_dtype": about["input_dtype"],
            "input_shape": about["input_shape"],
            **({"class_map": True} if variant.class_map else {}),
            "batch": about["batch"],
            "bytes": sum(part.stat().st_size for part in parts_of(path)),
            "comparison": comparison,
            "metrics": metrics,
            "latency_ms": measure_latency(worker, about["batch"] or 1),
            "load_ms": round(about["load_seconds"] * 1e3, 1),
            "memory": worker.memory(),
            "processor": cards.processor(),
            "measured": cards.now(),
        }


def compare(expected: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    """How far what a file says (images, …, classes) is from what the model does."""
    difference = np.abs(expected - measured)
    return {
        "images": len(expected),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "top1_agreement": float((expected.argmax(axis=-1) == measured.argmax(axis=-1)).mean()),
    }


def objection(truth: Truth, entry: dict[str, Any], variant: Variant, max_drop: float) -> str | None:
    """Why a file must not ship; None where it may."""
    name, score = cards.score_in(truth.metrics)
    before, after = truth.metrics[score], entry["metrics"][score]
    drop = (before - after) * 100
    if drop > max_drop + 1e-6:  # as far as float64 can tell
        return (
            f"{name} fell by {drop:.2f} points (from {before:.2%} to {after:.2%}) where --max-drop allows {max_drop:g}"
        )
    other = 1 - entry["comparison"]["top1_agreement"]
    if variant.class_map and other > OTHER.get(variant.precision, 1):
        return (
            f"it names another class than the Keras model at {other:.1%} of the places, where {variant.precision} "
            f"may do so at {OTHER[variant.precision]:.1%}"
        )
    allowed = None if variant.class_map else CLOSE.get(variant.precision)
    for where, key in (("", "max_difference"), (" on coloured squares", "colours_max_difference")):
        difference = entry["comparison"][key]
        if allowed is not None and difference > allowed:
            return (
                f"a probability is {difference:.2g} off the Keras model's{where}, where {variant.precision} may be "
                f"{allowed:g} off"
            )
    # Integers may be far off on such images, but not nearer to what the model says of others.
    if entry["comparison"]["colours_mean_difference"] > 2 * entry["comparison"]["swapped_mean_difference"]:
        return "it takes red for blue: its probabilities are those of the Keras model for images with the two swapped"
    return None
