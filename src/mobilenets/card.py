"""A model is a directory; its card, ``card.json``, says everything a stranger needs to know about it."""

import datetime
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mobilenets import __version__
from mobilenets.architectures import (
    DETECTION_SIZE,
    SEGMENTATION_SIZE,
    AnyHead,
    Network,
    SegmentationHead,
    cost,
    head_of,
    layers_of,
    said_of,
    write_out,
)
from mobilenets.data import ImageData
from mobilenets.data.boxes import BoxData
from mobilenets.data.masks import MaskData
from mobilenets.errors import UserError
from mobilenets.files import explain, write_json

CLASSIFY, DETECT, SEGMENT = TASKS = ("classify", "detect", "segment")
FORMAT = 1  # of card.json; raised when an older tool could no longer read it
MODEL, CARD, HISTORY, EXPORT = "model.keras", "card.json", "history.csv", "export"
GRID, CHOSEN = "grid", "chosen"  # where its networks were measured, and the one that fits a budget
STAGES = "stages"  # what stands behind a model that was trained to a budget
RUN = f"{STAGES}/config.json"  # how such a run was begun
ELASTIC = "elastic.npz"  # where several widths or resolutions were trained: the statistics of every network
_FILES = (MODEL, CARD, HISTORY, ELASTIC, "report.html")  # of a model, which go where it is replaced
_FOLDERS = ("pictures", EXPORT, GRID, CHOSEN, STAGES, "tensorboard")
LARGEST_CARD = 64 * 2**20  # bytes
_REQUIRED = {"task": str, "network": str, "classes": list, "input_shape": list}


def score_in(metrics: Mapping[str, Any]) -> tuple[str, str]:
    """The figure that models of a task are compared by: what people call it, and its name among the metrics."""
    found = next((key for key in ("ap", "miou") if key in metrics), "accuracy")
    return {"ap": "AP", "miou": "mIoU"}.get(found, found), found


def now() -> str:
    """The time as the card writes it: UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_card(directory: Path | str) -> dict[str, Any]:
    """Reads and checks ``card.json``.

    Raises:
        UserError: there is no such directory or card, or the card is damaged or newer than this tool.
    """
    path = Path(directory) / CARD
    if not path.is_file():
        raise UserError(f"{directory}: not a model directory (it has no {CARD}); make one with `mobilenets train`")
    if path.stat().st_size > LARGEST_CARD:
        raise UserError(f"{path}: larger than {LARGEST_CARD >> 20} MiB; this is no card of ours")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, not readable as JSON ({error})") from None
    if not isinstance(card, dict) or not isinstance(card.get("format"), int):
        raise UserError(f"{path}: damaged, it does not say which format it has")
    if card["format"] > FORMAT:
        raise UserError(
            f"{path}: written by a newer version ({card.get('tool', 'unknown')}); upgrade mobilenets to read it"
        )
    for key, kind in _REQUIRED.items():
        if not isinstance(card.get(key), kind):
            raise UserError(f"{path}: damaged, {key!r} is missing or not a {kind.__name__}")
    artifacts = card.get("artifacts", [])
    if not isinstance(artifacts, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("file"), str) for entry in artifacts
    ):
        raise UserError(f"{path}: damaged, artifacts must be a list of exported files")
    if not isinstance(card.get("data", {}), dict):
        raise UserError(f"{path}: damaged, data must say which images the model was trained on")
    if card["task"] not in TASKS:
        raise UserError(f"{path}: damaged, task must be one of {', '.join(TASKS)}, not {card['task']!r}")
    shape = card["input_shape"]
    if len(shape) != 3 or not all(isinstance(side, int) and 0 < side <= 8192 for side in shape):
        raise UserError(f"{path}: damaged, input_shape is {shape!r}")
    if not card["classes"] or not all(isinstance(name, str) for name in card["classes"]):
        raise UserError(f"{path}: damaged, classes must be a list of names")
    return card


def read_classifier(directory: Path | str, verb: str) -> dict[str, Any]:
    """Reads the card of a model that must be a classifier.

    Raises:
        UserError: as for `read_card`; or it is another model, which ``verb`` does not take yet.
    """
    card = read_card(directory)
    if card["task"] != CLASSIFY:
        raise UserError(f"{directory}: {verb} takes classifiers, and this model is there to {card['task']}")
    return card


def require_apart(out: Path, **read: Path | str | None) -> None:
    """Checks that nothing which is read lies where a model is to be written.

    Args:
        out: the directory.
        read: by the option that names it, or ``model``, ``file`` or ``data``, what is read; None, and what is no path,
            is left out.

    Raises:
        UserError: something does.
    """
    for option, path in read.items():
        if path is None or not Path(path).exists() or not Path(path).resolve().is_relative_to(out.resolve()):
            continue
        inside = Path(path).resolve().relative_to(out.resolve()).parts
        if not inside or inside[0] in (*_FILES, *_FOLDERS):
            what = f"the {option}" if option in ("model", "file", "data") else f"--{option}"
            raise UserError(f"--out {out}: what is read, {what} {path}, would be replaced; name another directory")


def require_new(out: Path) -> None:
    """Checks that a directory holds no model, no run that was not finished, and no file of a name that models use.

    Raises:
        UserError: it does.
    """
    if (out / CARD).exists():
        raise UserError(f"{out}: already holds a model; choose another --out, or replace it with --overwrite")
    if (out / RUN).is_file():
        raise UserError(
            f"{out}: holds an unfinished run to a budget; go on with --budget and --resume, or start again with "
            "--overwrite"
        )
    for name in _FILES:
        if (out / name).exists():
            raise UserError(f"{out}: already holds {name}; choose another --out, or replace it with --overwrite")


def clear(directory: Path) -> None:
    """Removes what a model left in its directory, and nothing else that may stand there.

    Directories, whose names others may use as well, go only where there is a model, or a run that was not finished.

    Raises:
        UserError: the directory cannot be written, or is a file.
    """
    folders = (STAGES,) if (directory / RUN).is_file() else ()
    if any((directory / name).is_file() for name in (CARD, HISTORY)):
        folders = _FOLDERS
    for name in _FILES:
        try:
            (directory / name).unlink(missing_ok=True)
        except OSError as error:
            raise explain(error, directory) from error
    for name in folders:
        shutil.rmtree(directory / name, ignore_errors=True)


def begin(
    network: Network,
    width_multiplier: float,
    size: int,
    classes: Sequence[str],
    command: str,
    crop: float = 1.0,
    head: AnyHead | None = None,
) -> dict[str, Any]:
    """The part of a new card that says what the model is; data, training and metrics come from elsewhere.

    With a ``head`` it is a detector or a segmenter, which see whole images, stretched.
    """
    layers = layers_of(network, head, (size, size, 3), len(classes), width_multiplier)
    if head:
        resized = f"stretched to {size} x {size} pixels"
    else:
        resized = f"shorter side to {round(size / crop)} pixels, "
        resized += f"centre crop of {size}" if crop < 1 else "centre crop"
    return {
        "format": FORMAT,
        "tool": f"mobilenets {__version__}",
        "task": task_with(head),
        "network": network.name,
        **said_of(head),
        "width_multiplier": width_multiplier,
        "resolution_multiplier": round(size / usual_size(network, head), 4),
        "input_shape": [size, size, 3],
        "classes": list(classes),
        "conventions": network.conventions,
        **({"channels": dict(network.channels)} if network.channels else {}),
        "preprocessing": {
            "range": [0, 255],
            "channels": "RGB",
            "resize": resized,
            "crop": crop,
        },
        "command": command,
        "created": now(),
        "cost": asdict(cost(layers)),
        "artifacts": [],
        "environment": environment(),
    }


def task_with(head: AnyHead | None) -> str:
    """The task of a model with that head."""
    return CLASSIFY if head is None else SEGMENT if isinstance(head, SegmentationHead) else DETECT


def usual_size(network: Network, head: AnyHead | None) -> int:
    """Pixels of the side of its images, where nobody names a size: ρ is relative to it."""
    return {CLASSIFY: network.resolution, DETECT: DETECTION_SIZE, SEGMENT: SEGMENTATION_SIZE}[task_with(head)]


def data_entry(data: ImageData | BoxData | MaskData, options: dict[str, Any]) -> dict[str, Any]:
    """What the card says of a data set; ``options`` are those it was loaded with."""
    return {
        "source": data.source,
        "name": data.name,
        "fingerprint": data.fingerprint,
        "train": len(data.train),
        "val": len(data.val),
        "skipped": len(data.problems),
        "notes": list(data.notes),
        **options,
    }


def as_trained(
    network: Network, card: dict[str, Any], directory: Path, width_multiplier: float, head: AnyHead | None = None
) -> Network:
    """The network as a card's weights need it: by their conventions, and with the channels that pruning left them.

    Args:
        network: the table.
        card: of the weights.
        directory: of the card, for messages.
        width_multiplier: that is wanted; at another one, or of another network, pruned channels mean nothing.
        head: of the detector or segmenter that is wanted, or None; of another head, pruned channels mean nothing
            either.

    Raises:
        UserError: the card says nonsense.
    """
    found, left = card.get("conventions", network.conventions), card.get("channels", {})
    try:
        good = found["padding"] in ("same", "symmetric") and 0 < found["epsilon"] < 1
        good &= len(found["mean"]) == len(found["std"]) in (1, 3) and all(
            isinstance(value, int | float) for value in (*found["mean"], *found["std"])
        )
        good &= all(value > 0 for value in found["std"])
        good &= isinstance(found.get("dilated_step", False), bool)
    except (TypeError, KeyError):
        good = False
    if not good:
        raise UserError(f"{directory / CARD}: damaged, conventions is {found!r}")
    if not isinstance(left, dict) or not all(isinstance(count, int) for count in left.values()):
        raise UserError(f"{directory / CARD}: damaged, channels must say how many each pruned layer has")
    network = network.converted({key: value for key, value in found.items() if key in network.conventions})
    if card["network"] != network.name or card.get("width_multiplier") != width_multiplier:
        return network
    network = replace(network, channels=tuple(left.items()))
    try:
        own = head_of(card)
        if own is None:
            write_out(network, width_multiplier=width_multiplier)
            return network
        layers_of(network, own, tuple(card["input_shape"]), len(card["classes"]), width_multiplier)
    except UserError as error:
        raise UserError(f"{directory / CARD}: damaged, {error}") from None
    if head is not None and head.name == own.name:
        return network
    body = {layer.name for layer in write_out(replace(network, channels=()), width_multiplier=width_multiplier)}
    return replace(network, channels=tuple(each for each in network.channels if each[0] in body))


def crop(card: dict[str, Any]) -> float:
    """Share of an image's shorter side that the model is shown, see `mobilenets.data.resizing.fit`.

    Raises:
        UserError: the card says nonsense about it.
    """
    preprocessing = card.get("preprocessing", {})
    value = preprocessing.get("crop", 1.0) if isinstance(preprocessing, dict) else None
    if not isinstance(value, int | float) or not 0 < value <= 1:
        raise UserError(f"{CARD}: damaged, preprocessing must say which share of an image is shown, in (0, 1]")
    return float(value)


def write_card(directory: Path | str, card: dict[str, Any]) -> None:
    """Writes ``card.json``, whole or not at all."""
    write_json(Path(directory) / CARD, card)


def environment() -> dict[str, Any]:
    """What the numbers of a card were made with: processor, cores, versions."""
    import platform
    from importlib import metadata

    import keras

    packages = {}
    for name in (
        "numpy",
        "tensorflow",
        "tensorflow-cpu",
        "jax",
        "torch",
        "ai-edge-litert",
        "scikit-learn",
        "pillow",
    ):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        "backend_version": packages.get(backend) or packages.get(f"{backend}-cpu"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "packages": packages,
    }


def processor() -> str:
    """The processor's name as its maker writes it, as far as the system tells."""
    import platform

    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
