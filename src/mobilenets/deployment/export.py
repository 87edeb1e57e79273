"""``mobilenets export``: write files, run each, and let go out only what is as good as the model."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.data import Split
from mobilenets.data.loader import EvaluationBatches
from mobilenets.deployment.artifacts import LABELS, check_entries, check_probabilities, digests, parts_of
from mobilenets.deployment.latency import measure_latency
from mobilenets.deployment.targets import TARGETS, Variant, Writer, variants
from mobilenets.deployment.worker import Worker
from mobilenets.errors import UserError
from mobilenets.evaluation import measure
from mobilenets.evaluation.evaluate import evaluation_data, publish, require_fit
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.files import explain, write_text
from mobilenets.models.builder import at_size
from mobilenets.models.saving import load_model

CALIBRATION = 256  # images
COLOURS = 64  # images
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
    if not 0 <= max_drop <= 100:
        raise UserError(f"--max-drop must be from 0 to 100 points, not {max_drop:g}")
    if threads is not None and threads < 1:
        raise UserError(f"--threads must be at least 1, not {threads}")
    directory = Path(directory)
    card = cards.read_card(directory)
    check_entries(directory, card)
    own = card["input_shape"][0]
    size = None if size == own else size
    wanted = variants(targets, precisions, input_dtype, batch, size)
    data = evaluation_data(card)
    model = load_model(directory)
    require_fit(model, card, directory)
    model = at_size(model, size or own)
    truth = _truth(model, EvaluationBatches(data.val, size or own, 64, crop=cards.crop(card)))
    reference = measure(truth.expected, truth.labels, data.classes)

    split = _calibration_split(card, data, calibration, any(variant.precision == "int8" for variant in wanted))
    writer = Writer(model, list(_images(split, size or own, cards.crop(card))))
    write_text(directory / cards.EXPORT / LABELS, "".join(f"{' '.join(name.split())}\n" for name in card["classes"]))
    metrics = None if size else reference
    entries, failed = [], []
    for variant in wanted:
        file = f"{cards.EXPORT}/{variant.name}"
        with _candidate(directory, variant) as place:
            try:
                path = writer.write(variant, place)
            except (UserError, OSError) as error:
                failed.append(str(explain(error, directory / file) if isinstance(error, OSError) else error))
                continue
            try:
                entry = _measured(path, variant, truth, data.classes, threads)
                why = _objection(reference, entry, variant, max_drop)
            except UserError as error:
                why = f"it cannot be run: {str(error).removeprefix(f'{path}: ')}"
            if why:
                _set_aside(directory, path)
                aside = {"file": f"{file}.refused", "reason": why, "measured": cards.now()}
                _record(directory, file, metrics, refused=aside)
                failed.append(f"{directory / file}.refused: refused, {why}")
                continue
            _accept(directory, path)
        entry = {"file": file, "files": digests(directory, directory / file)} | entry
        _record(directory, file, metrics, artifact=entry)
        entries.append(entry)
    if failed:
        written = f"; exported all the same: {', '.join(entry['file'] for entry in entries)}" if entries else ""
        raise UserError("; ".join(failed) + written)
    return entries


def _calibration_split(card: dict[str, Any], data: Any, calibration: str | None, needed: bool) -> Split:
    """Images to calibrate on: not those that the file is measured on."""
    if not needed:
        return Split(data.train.images[:0], data.train.labels[:0])
    if calibration:
        other = evaluation_data(card, calibration)
        return _some(other.train if len(other.train) else other.val)
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


@dataclass(frozen=True)
class _Truth:
    """What files are compared with: the Keras model on the evaluation set, and on colours.

    Attributes:
        images: of the evaluation set.
        labels: of them.
        expected: the model's probabilities (images, classes).
        colours: uint8 (images, height, width, 3).
        expected_colours: the model's probabilities for them.
        expected_swapped: the same with red and blue swapped.
    """

    images: EvaluationBatches
    labels: np.ndarray
    expected: np.ndarray
    colours: np.ndarray
    expected_colours: np.ndarray
    expected_swapped: np.ndarray


def _truth(model: Any, images: EvaluationBatches) -> _Truth:
    predict = predictor(model)
    expected, labels = probabilities(predict, images)
    # As many as in a batch of the evaluation set, for which the model has been compiled.
    colours = _colours(min(COLOURS, len(expected)), model.input_shape[1])
    swapped = predict(np.ascontiguousarray(colours[..., ::-1]))
    return _Truth(images, labels, expected, colours, predict(colours), swapped)


def _colours(count: int, size: int) -> np.ndarray:
    """Coloured squares with noise, the full range of a byte: channels in another order change each of them.

    The images of an evaluation set may be grey, and then say nothing about the order.
    """
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 206, (count, 4, 4, 3)).repeat(-(-size // 4), axis=1).repeat(-(-size // 4), axis=2)
    return (squares[:, :size, :size] + rng.integers(0, 50, (count, size, size, 3))).astype(np.uint8)


def _measured(
    path: Path, variant: Variant, truth: _Truth, classes: tuple[str, ...], threads: int | None
) -> dict[str, Any]:
    kind = TARGETS[variant.target]
    with Worker(path, kind.runtime, threads) as worker:
        about = worker.about
        if tuple(about["input_shape"]) != truth.colours.shape[1:] or about["input_dtype"] != variant.input_dtype:
            raise UserError(f"it takes {about['input_dtype']} images of shape {tuple(about['input_shape'])}")
        outputs, _ = probabilities(worker, truth.images)
        check_probabilities(path, outputs, len(classes))
        colours = worker(truth.colours)
        check_probabilities(path, colours, len(classes))
        comparison = compare(truth.expected, outputs) | {
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
            "batch": about["batch"],
            "bytes": sum(part.stat().st_size for part in parts_of(path)),
            "comparison": comparison,
            "metrics": measure(outputs, truth.labels, classes),
            "latency_ms": measure_latency(worker, about["batch"] or 1),
            "load_ms": round(about["load_seconds"] * 1e3, 1),
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
    if drop > max_drop + 1e-6:  # as far as float64 can tell
        return (
            f"accuracy fell by {drop:.2f} points (from {reference['accuracy']:.2%} to {accuracy:.2%}) "
            f"where --max-drop allows {max_drop:g}"
        )
    allowed = CLOSE.get(variant.precision)
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


def _accept(directory: Path, path: Path) -> None:
    """Gives a file its name, and removes what was refused under it."""
    _clear(directory, path)
    for part in _movable(path):
        part.replace(directory / cards.EXPORT / part.name)


def _set_aside(directory: Path, path: Path) -> None:
    """Keeps a file as ``*.refused``, and removes an earlier one of its name."""
    _clear(directory, path)
    for part in _movable(path):
        part.replace(directory / cards.EXPORT / f"{part.name}.refused")


def _clear(directory: Path, path: Path) -> None:
    for part in _movable(path):
        target = directory / cards.EXPORT / part.name
        _remove(target)
        _remove(target.with_name(f"{part.name}.refused"))


def _movable(path: Path) -> list[Path]:
    return [path] if path.is_dir() else parts_of(path)


def _record(
    directory: Path,
    file: str,
    metrics: dict[str, Any] | None,
    artifact: dict[str, Any] | None = None,
    refused: dict[str, Any] | None = None,
) -> None:
    """Says in the card what became of a file, instead of what it said before.

    Args:
        directory: the model directory.
        file: its path there.
        metrics: of the Keras model, where it was measured at its own size.
        artifact: the entry of an accepted file.
        refused: that of a refused one.
    """
    card = cards.read_card(directory)  # anew: another process may have written to it while this file was measured
    check_entries(directory, card)
    card["artifacts"] = [entry for entry in card.get("artifacts", []) if entry["file"] != file]
    card["refused"] = [entry for entry in card.get("refused", []) if entry["file"] != f"{file}.refused"]
    if metrics:
        card["metrics"] = metrics
    if artifact:
        card["artifacts"].append(artifact)
    if refused:
        card["refused"].append(refused)
    if not card["refused"]:
        del card["refused"]
    publish(directory, card)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
