"""``mobilenets export``: write files, run each, and let go out only what is as good as the model."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.data import Split
from mobilenets.data.loader import EvaluationBatches
from mobilenets.deployment.artifacts import LABELS, digests, parts_of
from mobilenets.deployment.latency import measure_latency
from mobilenets.deployment.targets import TARGETS, Variant, Writer, variants
from mobilenets.deployment.worker import Worker
from mobilenets.errors import UserError
from mobilenets.evaluation import measure
from mobilenets.evaluation.evaluate import evaluation_data, publish, require_fit
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.files import write_text
from mobilenets.models.builder import at_size
from mobilenets.models.saving import load_model

CALIBRATION = 256  # images
# Rounding apart a float32 file computes what the model does, and one with weights in half precision nearly so; a file
# that differs more is broken, even if it happens to be as accurate.
CLOSE = {"float32": 1e-3, "float16": 0.1}


def export(
    directory: Path | str,
    targets: Iterable[str] = ("litert",),
    precisions: Iterable[str] = ("float32",),
    *,
    input_dtype: str = "uint8",
    batch: str | int | None = None,
    size: int | None = None,
    max_drop: float = 1.0,
    threads: int | None = None,
    calibration: str | None = None,
) -> list[dict[str, Any]]:
    """Writes files of a model and measures each of them, in its own runtime and a process of its own.

    Args:
        directory: a model directory.
        targets: of `mobilenets.deployment.targets.TARGETS`.
        precisions: float32, float16 (weights stored so, computed in float32) or int8 (all of it, but what is slower
            so; in a SavedModel the weights alone).
        input_dtype: ``uint8`` or ``float32``; pixel values 0..255 either way.
        batch: images a call, ``dynamic``, or None for what suits each target.
        size: pixels of the images that the files take; None takes the model's.
        max_drop: points of accuracy that a file may lose against the Keras model at the same size.
        threads: for the latency; None takes every core.
        calibration: data set to choose the ranges of integers on; None takes images that the model was trained on.

    Returns:
        The card's entries of the files.

    Raises:
        UserError: the model or its data is unusable, or a file was refused: it lost too much accuracy, does not
            compute what the model does, or cannot be run. It is then kept as ``*.refused``; the others are exported.
    """
    directory = Path(directory)
    card = cards.read_card(directory)
    own = card["input_shape"][0]
    size = None if size == own else size
    wanted = variants(targets, precisions, input_dtype, batch, size)
    data = evaluation_data(card)
    model = load_model(directory)
    require_fit(model, card, directory)
    model = at_size(model, size or own)
    images = EvaluationBatches(data.val, size or own, 64, crop=cards.crop(card))
    expected, labels = probabilities(predictor(model), images)
    reference = measure(expected, labels, data.classes)
    if not size:
        card["metrics"] = reference

    split = _calibration_split(card, data, calibration, any(variant.precision == "int8" for variant in wanted))
    writer = Writer(model, list(_images(split, size or own, cards.crop(card))))
    refused = []
    write_text(directory / cards.EXPORT / LABELS, "".join(f"{' '.join(name.split())}\n" for name in card["classes"]))
    entries = []
    for variant in wanted:
        with _candidate(directory, variant) as place:
            path = writer.write(variant, place)
            try:
                entry = _measured(path, variant, images, expected, labels, data.classes, threads)
                why = _objection(reference, entry, variant, max_drop)
            except UserError as error:
                why = f"it cannot be run: {str(error).removeprefix(f'{path}: ')}"
            if why:
                refused.append(_refuse(directory, card, path, why))
                continue
            path = _accept(directory, path)
        entry = {"file": path.relative_to(directory).as_posix(), "files": digests(directory, path)} | entry
        card["artifacts"] = [*_without(card, entry["file"]), entry]
        publish(directory, card)
        entries.append(entry)
    if refused:
        raise UserError("; ".join(refused))
    return entries


def _calibration_split(card: dict[str, Any], data: Any, calibration: str | None, needed: bool) -> Split:
    """Images to calibrate on: not those that the file is measured on."""
    if not needed:
        return Split(data.train.images[:0], data.train.labels[:0])
    if calibration:
        other = evaluation_data(card, calibration)
        return _some(other.val)
    if not len(data.train):
        raise UserError(
            "int8 needs images to calibrate on, and this model knows none it was trained on; name some "
            "with --calibrate FOLDER"
        )
    return _some(data.train)


def _some(split: Split) -> Split:
    chosen = np.sort(np.random.default_rng(0).permutation(len(split))[:CALIBRATION])
    images = split.images
    images = images[chosen] if isinstance(images, np.ndarray) else [images[index] for index in chosen]
    return Split(images, split.labels[chosen])


def _images(split: Split, size: int, crop: float) -> Iterator[np.ndarray]:
    if len(split):
        for batch, _ in EvaluationBatches(split, size, 64, crop=crop):
            yield from batch


@contextmanager
def _candidate(directory: Path, variant: Variant) -> Iterator[Path]:
    """A directory for a file that is not accepted yet: a kill leaves nothing unmeasured to ship."""
    place = directory / cards.EXPORT / f".candidate.{variant.name}"
    shutil.rmtree(place, ignore_errors=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _measured(
    path: Path,
    variant: Variant,
    images: EvaluationBatches,
    expected: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    threads: int | None,
) -> dict[str, Any]:
    kind = TARGETS[variant.target]
    with Worker(path, kind.runtime, threads) as worker:
        outputs, _ = probabilities(worker, images)
        if outputs.shape != expected.shape or not np.isfinite(outputs).all():
            raise UserError("its probabilities are not numbers")
        return {
            "target": variant.target,
            "runtime": kind.runtime,
            "precision": variant.precision,
            "input_dtype": worker.about["input_dtype"],
            "input_shape": worker.about["input_shape"],
            "batch": worker.about["batch"],
            "bytes": sum(part.stat().st_size for part in parts_of(path)),
            "comparison": compare(expected, outputs),
            "metrics": measure(outputs, labels, classes),
            "latency_ms": measure_latency(worker),
            "load_ms": round(worker.about["load_seconds"] * 1e3, 1),
            "memory": worker.memory(),
            "processor": cards.processor(),
            "measured": cards.now(),
        }


def compare(expected: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    """How far the probabilities (images, classes) of a file are from the model's."""
    difference = np.abs(expected - measured)
    return {
        "images": len(expected),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "top1_agreement": float((expected.argmax(axis=1) == measured.argmax(axis=1)).mean()),
    }


def _objection(reference: dict[str, Any], entry: dict[str, Any], variant: Variant, max_drop: float) -> str | None:
    """Why a file must not ship; None where it may."""
    accuracy = entry["metrics"]["accuracy"]
    drop = (reference["accuracy"] - accuracy) * 100
    if drop > max_drop:
        return (
            f"accuracy fell by {drop:.2f} points (from {reference['accuracy']:.2%} to {accuracy:.2%}) "
            f"where --max-drop allows {max_drop:g}"
        )
    difference, allowed = entry["comparison"]["max_difference"], CLOSE.get(variant.precision)
    if allowed is not None and difference > allowed:
        return (
            f"a probability is {difference:.2g} off the Keras model's, where {variant.precision} may be {allowed:g} off"
        )
    return None


def _accept(directory: Path, path: Path) -> Path:
    target = directory / cards.EXPORT / path.name
    if target.is_dir():
        shutil.rmtree(target)
    for part in [path] if path.is_dir() else parts_of(path):
        part.replace(target.with_name(part.name))
    _remove(target.with_name(f"{target.name}.refused"))
    return target


def _refuse(directory: Path, card: dict[str, Any], path: Path, why: str) -> str:
    """Keeps a file aside, and takes an earlier one of its name off the card."""
    target = directory / cards.EXPORT / path.name
    for part in [path] if path.is_dir() else parts_of(path):
        old = target.with_name(part.name)
        _remove(old)
        aside = old.with_name(f"{part.name}.refused")
        _remove(aside)
        part.replace(aside)
    file = target.relative_to(directory).as_posix()
    card["artifacts"] = _without(card, file)
    card["refused"] = [old for old in card.get("refused", []) if old["file"] != f"{file}.refused"]
    card["refused"].append({"file": f"{file}.refused", "reason": why, "measured": cards.now()})
    publish(directory, card)
    return f"{target}.refused: refused, {why}"


def _without(card: dict[str, Any], file: str) -> list[dict[str, Any]]:
    return [entry for entry in card.get("artifacts", []) if entry["file"] != file]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
