"""The report of a model directory: one HTML file that needs nothing else."""

import base64
import csv
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, ChoiceLoader, Environment, PackageLoader

from mobilenets.architectures import NETWORKS
from mobilenets.errors import UserError
from mobilenets.evaluation import box_report, formats, mask_report
from mobilenets.evaluation.chosen import chosen
from mobilenets.evaluation.classification import confusions, interval
from mobilenets.files import write_text

TASKS = {"classify": "Image classifier", "detect": "Object detector", "segment": "Segmenter"}
TEMPLATES = {"detect": "boxes.html.j2", "segment": "masks.html.j2"}  # of others, report.html.j2
SCORES = {"detect": "ap", "segment": "miou"}  # what a model is judged by; others by accuracy
RUNTIMES = {
    "keras": "Keras",
    "litert": "LiteRT",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorflow": "TensorFlow",
}
FORMATS = (
    *("count", "duration", "milliseconds", "number", "percent", "plain"),
    *("points", "rate", "short_count", "shorten", "size"),
)
PICTURES = ("curves", "confusion", "mistakes", "precision_recall", "worst", "augmented")
SHOWN_CLASSES = 20  # rows of the per-class table before the rest is folded
CONFUSIONS = 8

# Settings and versions come as flat dicts whose keys name themselves; these a rule would misspell.
LABELS = {
    "batch_size": "batch",
    "ema": "EMA of the weights",
    "seconds": "time",
    "calibration_seconds": "time of measuring all widths and resolutions",
    "images_per_second": "speed",
    "python": "Python",
    "keras": "Keras",
    "randaugment": "RandAugment operations",
    "magnitude": "RandAugment strength",
    "mixup": "MixUp",
}


def render(directory: Path | str) -> Path:
    """Writes ``report.html`` from a model directory's card.json, history.csv and pictures.

    The file loads nothing: style and pictures are inside, there is no script. What the card does not have is
    left out. Everything that comes from the card (class names, paths, notes) is escaped.

    Args:
        directory: A model directory.

    Returns:
        The path of the report.

    Raises:
        UserError: there is no card.json, it cannot be read, or the report cannot be written.
    """
    directory = Path(directory)
    card = _card(directory / "card.json")
    template = TEMPLATES.get(str(card.get("task")), "report.html.j2")
    page = environment().get_template(template).render(_context(directory, card))
    # A name that is no valid Unicode (from a foreign file system) must not keep the report back.
    path = directory / "report.html"
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))
    return path


def _card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); is {path.parent} a model directory?") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from error
    if not isinstance(card, dict):
        raise UserError(f"{path}: holds no JSON object; train again or restore it")
    return card


def environment(*packages: str) -> Environment:
    """What renders a report's template: nothing unescaped, numbers written as in all reports.

    Args:
        *packages: that have a directory ``templates``, besides this one.
    """
    templates = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in (*packages, "mobilenets.evaluation")]),
        autoescape=True,
        undefined=ChainableUndefined,  # any part of a card may be missing
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in FORMATS:
        templates.filters[name] = getattr(formats, name)
    templates.filters["setting"] = _setting
    templates.filters["label"] = lambda key: LABELS.get(key, str(key).replace("_", " "))
    templates.filters["date"] = lambda text: str(text)[:10]
    templates.tests["a_number"] = formats.is_number
    return templates


def _context(directory: Path, card: dict[str, Any]) -> dict[str, Any]:
    """Gathers everything the template shows; it decides nothing but the layout."""
    metrics = card.get("metrics") or {}
    task = str(card.get("task", "classify"))
    score = SCORES.get(task, "accuracy")
    artifacts = _artifacts(card, score)
    shipped = _shipped(artifacts)
    return {
        "card": card,
        "task": TASKS.get(task, "Model"),
        "network": _title(card.get("network")),
        "metrics": metrics,
        "score": score,
        "artifacts": artifacts,
        "runtimes": RUNTIMES,
        "shipped": shipped,
        "keras_bytes": _size(directory / "model.keras"),
        "history": _history(directory / "history.csv", f"val_{score}"),
        "pictures": {name: picture(directory / "pictures" / f"{name}.png") for name in PICTURES},
        "shown_classes": SHOWN_CLASSES,
        "sides": len(metrics.get("confusion") or ()),
        "processor": shipped.get("processor") or (card.get("environment") or {}).get("processor"),
        "settings": _flat(card.get("training")),
        "machine": _flat(card.get("environment")),
        "directory": shlex.quote(_short(directory)),
        "elastic": _elastic(card),
        "chosen": chosen(card.get("chosen")),
        **{"detect": _of_detector, "segment": _of_segmenter}.get(task, _of_classifier)(card, metrics),
    }


def _of_classifier(card: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    average = (metrics.get("macro") or {}).get("f1") or 0.0
    return {
        "interval": _interval(metrics),
        "per_class": _per_class(metrics, "f1", "support", _well_below(average)),
        "confusions": _confusions(metrics),
    }


def _of_detector(card: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    average = metrics.get("ap") or 0.0
    # AP is lower than F1: where its average is below 0.4, it is half of that which stands out.
    marked = max(_well_below(average), average / 2)
    return box_report.context(card, metrics) | {"per_class": _per_class(metrics, "ap", "objects", marked)}


def _of_segmenter(card: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    average = metrics.get("miou") or 0.0
    marked = max(_well_below(average), average / 2)  # as for AP, which is as low
    return mask_report.context(card, metrics) | {"per_class": _per_class(metrics, "iou", "pixels", marked)}


def _elastic(card: Mapping[str, Any]) -> dict[str, Any] | None:
    """The networks of several widths and resolutions, a row for each width."""
    about = card.get("elastic")
    members = about.get("members") if isinstance(about, Mapping) else None
    found = {
        (entry["width_multiplier"], entry["resolution"]): entry
        for entry in (members if isinstance(members, list) else [])
        if isinstance(entry, Mapping)
        and all(formats.is_number(entry.get(key)) for key in ("width_multiplier", "resolution"))
    }
    alphas, sizes = (sorted({member[index] for member in found}) for index in (0, 1))
    rows = [{"alpha": alpha, "cells": [found.get((alpha, size)) for size in sizes]} for alpha in alphas]
    return {"sizes": sizes, "rows": rows} if rows else None


def _confusions(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    known = "per_class" in metrics and ("confusion" in metrics or "confusion_pairs" in metrics)
    return confusions(metrics, CONFUSIONS) if known else []


def _title(name: Any) -> str:
    return NETWORKS[name].title if name in NETWORKS else str(name or "Model")


def _interval(metrics: Mapping[str, Any]) -> tuple[float, float] | None:
    accuracy, images = metrics.get("accuracy"), metrics.get("images")
    return interval(accuracy, images) if formats.is_number(accuracy) and images else None


def _artifacts(card: Mapping[str, Any], score: str) -> list[dict[str, Any]]:
    """Returns the card's artifacts, each with its score's difference to the Keras model's."""
    reference = (card.get("metrics") or {}).get(score)
    found = []
    for artifact in card.get("artifacts") or []:
        value = (artifact.get("metrics") or {}).get(score)
        both = formats.is_number(value) and formats.is_number(reference)
        found.append(
            artifact
            | {
                "name": str(artifact.get("file", "")).rsplit("/", 1)[-1],
                "runtime_name": RUNTIMES.get(artifact.get("runtime"), artifact.get("runtime")),
                "difference": value - reference if both else None,
                "digest": next(iter((artifact.get("files") or {}).values()), None),
                "memory_bytes": _memory(artifact),
            }
        )
    return found


def _memory(artifact: Mapping[str, Any]) -> int | None:
    """What loading and running a file added to the memory of its process; None where that was not measured."""
    memory = artifact.get("memory") or {}
    known = formats.is_number(memory.get("peak")) and formats.is_number(memory.get("before"))
    return memory["peak"] - memory["before"] if known else None


def _shipped(artifacts: list[dict[str, Any]]) -> dict[str, Any]:
    """Picks the file that the tiles speak of: the fastest one, the first where none was timed, {} without."""

    def latency(artifact: Mapping[str, Any]) -> float:
        median = (artifact.get("latency_ms") or {}).get("median")
        return median if formats.is_number(median) else float("inf")

    return min(artifacts, key=latency, default={})


def _well_below(average: float) -> float:
    """Below which score a class is marked, given the average of all."""
    # How far below is "well below" depends on what the average still misses: at a macro F1 of 0.98 a class
    # with 0.95 stands out, at 0.60 only one below 0.40 does.
    return average - min(max(1 - average, 0.02), 0.2)


def _per_class(metrics: Mapping[str, Any], score: str, count: str, marked: float) -> list[dict[str, Any]]:
    """Sorts the classes by a score, worst first and those without images last; marks those below ``marked``."""
    rows = metrics.get("per_class") or []
    rows = [row | {"poor": bool(row.get(count)) and (row.get(score) or 0.0) < marked} for row in rows]
    return sorted(rows, key=lambda row: (not row.get(count), row.get(score) or 0.0))


def _history(path: Path, score: str) -> dict[str, Any] | None:
    """Returns the number of epochs and the one with the best ``score``; None without a readable history."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    validated = []
    for number, row in enumerate(rows, start=1):
        try:
            validated.append((float(row[score]), int(float(row.get("epoch") or number))))
        except (KeyError, TypeError, ValueError):
            continue
    validated = [each for each in validated if formats.is_number(each[0])]
    best = max(validated, key=lambda each: (each[0], -each[1]), default=None)
    return {"epochs": len(rows), "best": best and {"value": best[0], "epoch": best[1]}} if rows else None


def picture(path: Path) -> dict[str, Any] | None:
    """Returns a PNG as a data address with its size in pixels; None where there is none."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 24:
        return None
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    return {
        "source": "data:image/png;base64," + base64.b64encode(content).decode("ascii"),
        "width": width,
        "height": height,
    }


def _size(path: Path) -> int | None:
    """Returns a file's size in bytes, None where there is no such file."""
    return path.stat().st_size if path.is_file() else None


def _flat(settings: Any) -> list[tuple[str, Any]]:
    """Returns the settings that say something as (key, value): None and nested dicts without content go."""
    if not isinstance(settings, Mapping):
        return []
    return [(str(key), value) for key, value in settings.items() if value not in (None, "", {}, [])]


def _setting(value: Any, key: str = "") -> str:
    """Writes one setting: times and speeds with units, yes and no, the parts of a dict or list in a row."""
    if key.endswith("seconds"):
        return formats.duration(value)
    if key == "images_per_second":
        return f"{formats.short_count(value)} images/s"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) < 10_000:
        return str(value)
    if isinstance(value, int | float):
        return formats.number(value)
    if isinstance(value, Mapping):
        return " · ".join(f"{part} {_setting(content)}" for part, content in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_setting(content) for content in value)
    return formats.plain(value)


def _short(directory: Path) -> str:
    """Names a directory as one types it here: reports are passed on, and home directories are private."""
    directory = directory.resolve()
    here = Path.cwd()
    inside = directory != here and directory.is_relative_to(here)
    return str(directory.relative_to(here)) if inside else directory.name
