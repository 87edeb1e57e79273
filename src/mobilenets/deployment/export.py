"""``mobilenets export``: write the file, run the file, and let it go out only if it is as good as the model."""

from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.data.loader import EvaluationBatches
from mobilenets.deployment.latency import measure_latency
from mobilenets.deployment.litert import write_litert
from mobilenets.deployment.runtimes import load_litert
from mobilenets.errors import UserError
from mobilenets.evaluation import measure
from mobilenets.evaluation.evaluate import evaluation_data, publish, require_fit
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.files import sha256, write_text
from mobilenets.models.saving import load_model


def export_litert(
    directory: Path | str, input_dtype: str = "uint8", max_drop: float = 1.0, threads: int | None = None
) -> dict[str, Any]:
    """Writes ``export/model.tflite`` and its labels, and measures the written file.

    Args:
        directory: a model directory.
        input_dtype: ``uint8`` or ``float32``; pixel values 0..255 either way.
        max_drop: points of accuracy that the file may lose against the Keras model.
        threads: for the latency; None takes every core.

    Returns:
        The card's entry of the file.

    Raises:
        UserError: the model or its data is unusable, or the file lost too much accuracy; it is then kept as
            ``export/model.tflite.refused``.
    """
    directory = Path(directory)
    card = cards.read_card(directory)
    data = evaluation_data(card)
    model = load_model(directory)
    require_fit(model, card, directory)
    suffix = "" if input_dtype == "uint8" else f"_{input_dtype}"
    path = directory / cards.EXPORT / f"model{suffix}.tflite"
    # Under its own name only once it has been accepted: a kill before that leaves no unmeasured file to ship.
    candidate = path.with_name(f".candidate.{path.name}")
    write_litert(model, candidate, input_dtype)
    write_text(path.with_name("labels.txt"), "".join(f"{_one_line(name)}\n" for name in card["classes"]))

    images = EvaluationBatches(data.val, card["input_shape"][0], 64, crop=cards.crop(card))
    expected, labels = probabilities(predictor(model), images)
    runner = load_litert(candidate, threads)
    measured, _ = probabilities(runner, images)
    card["metrics"] = measure(expected, labels, data.classes)
    file = path.relative_to(directory).as_posix()
    others = [old for old in card.get("artifacts", []) if old["file"] != file]
    metrics = measure(measured, labels, data.classes) if np.isfinite(measured).all() else None
    why = _objection(card["metrics"], metrics, max_drop)
    if why:
        refused = path.with_name(f"{path.name}.refused")
        candidate.replace(refused)
        path.unlink(missing_ok=True)  # of an earlier export; the card no longer vouches for it
        publish(directory, card | {"artifacts": others})
        raise UserError(f"{refused}: refused, {why}")
    candidate.replace(path)
    entry = {
        "file": file,
        "runtime": "litert",
        "precision": "float32",
        "input_dtype": runner.input_dtype,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "comparison": compare(expected, measured),
        "metrics": metrics,
        "latency_ms": measure_latency(runner),
        "processor": cards.processor(),
        "measured": cards.now(),
    }
    publish(directory, card | {"artifacts": [*others, entry]})
    return entry


def compare(expected: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    """How far the probabilities (images, classes) of a file are from the model's."""
    difference = np.abs(expected - measured)
    return {
        "images": len(expected),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "top1_agreement": float((expected.argmax(axis=1) == measured.argmax(axis=1)).mean()),
    }


def _objection(expected: dict[str, Any], measured: dict[str, Any] | None, max_drop: float) -> str | None:
    """Why a file must not ship, from the model's metrics and its own; None where it may."""
    if measured is None:
        return "its probabilities are not numbers"
    drop = (expected["accuracy"] - measured["accuracy"]) * 100
    if drop <= max_drop:
        return None
    return (
        f"accuracy fell by {drop:.2f} points (from {expected['accuracy']:.2%} to {measured['accuracy']:.2%}) "
        f"where --max-drop allows {max_drop:g}"
    )


def _one_line(name: str) -> str:
    return " ".join(name.split())
