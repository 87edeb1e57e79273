"""What ``mobilenets benchmark`` measures: files of a model directory, one file, or networks with random weights."""

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.architectures import Network, check, cost, head_of, layers_of, network, write_out
from mobilenets.deployment import artifacts
from mobilenets.deployment.artifacts import parts_of
from mobilenets.deployment.quicker import write_quicker
from mobilenets.deployment.runtimes import RUNTIMES, runtime_of
from mobilenets.deployment.targets import TARGETS, Variant, Writer, variants
from mobilenets.errors import UserError

CLASSES = 1000  # of a bare network, as published
CALIBRATION = 8  # random images, enough to choose ranges that nobody's accuracy depends on


@dataclass(frozen=True)
class Subject:
    """A file to time.

    Attributes:
        name: what a table calls it.
        path: the file.
        runtime: to run it in.
        batch: images a call.
        network: of the tables, or None where nobody tells.
        width_multiplier: α, or None likewise.
        resolution: pixels of the image's side, or None likewise.
        precision: of `mobilenets.deployment.targets.PRECISIONS`, or None likewise.
        macs: multiply-accumulates an image, or None likewise.
        accuracy: top-1, a detector's AP or a segmenter's mIoU, 0..1, or None where nobody has measured it.
        accuracy_of: what it was measured on.
        score: which of the two: ``top-1`` or ``AP``.
        peak: whether it tells how fast the machine is at all, see `mobilenets.deployment.peak`.
    """

    name: str
    path: Path
    runtime: str
    batch: int = 1
    network: str | None = None
    width_multiplier: float | None = None
    resolution: int | None = None
    precision: str | None = None
    macs: int | None = None
    accuracy: float | None = None
    accuracy_of: str | None = None
    score: str = "top-1"
    peak: bool = False

    @property
    def bytes(self) -> int:
        """Size of the file with all that belongs to it."""
        return sum(part.stat().st_size for part in parts_of(self.path))


def runtimes_of(path: Path, wanted: Sequence[str] | None) -> list[str]:
    """Where to run a file: its own runtime, or those of ``wanted`` that take it."""
    if wanted is None:
        return [runtime_of(path)]
    suffix = "" if path.is_dir() else path.suffix
    return [name for name in wanted if suffix in RUNTIMES[name].suffixes]


def installed(runtime: str) -> bool:
    """Whether the package of a runtime can be found."""
    return importlib.util.find_spec(RUNTIMES[runtime].package.split(".")[0]) is not None


# -- model directories and files ------------------------------------------------------------------------------------


def of_directory(
    directory: Path,
    targets: Sequence[str] | None,
    runtimes: Sequence[str] | None,
    precisions: Sequence[str] | None,
    batches: Sequence[int],
) -> list[Subject]:
    """Every exported file of a model directory, and the Keras model.

    Args:
        directory: the model directory.
        targets: kinds of files, and then without the Keras model; None takes all.
        runtimes: None runs each file in its own, and the model in Keras.
        precisions: None takes all.
        batches: images a call; a file with a fixed number is measured with that.

    Raises:
        UserError: it is none, or a file is not the one that was measured.
    """
    card = cards.read_card(directory)
    found = []
    for entry in card.get("artifacts", []):
        if precisions and entry.get("precision") not in precisions:
            continue
        if targets and entry.get("target") not in targets:
            continue
        artifact = artifacts.listed(directory, card, entry)
        for runtime in runtimes_of(artifact.path, runtimes):
            if installed(runtime):
                found += _of_artifact(artifact, runtime, batches)
    keras = (runtimes is None or "keras" in runtimes) and (not precisions or "float32" in precisions)
    if keras and not targets and installed("keras"):
        metrics = card.get("metrics") or {}
        found += [
            Subject(
                cards.MODEL,
                directory / cards.MODEL,
                "keras",
                batch,
                **_about(card, card["input_shape"][0], "float32"),
                **_accuracy(metrics),
            )
            for batch in batches
        ]
    return found


def of_file(path: Path, runtimes: Sequence[str] | None, batches: Sequence[int]) -> list[Subject]:
    """A single file; what its card says of it goes with it.

    Raises:
        UserError: it is no file that can be run, or not the one that its card lists.
    """
    suited = runtimes_of(path, runtimes)
    if not suited:
        raise UserError(f"{path}: none of {', '.join(runtimes or [])} takes such files")
    near = any((directory / cards.CARD).is_file() for directory in path.resolve().parents[:2])
    if near and path.suffix != ".keras":
        artifact = artifacts.find(path)
        return [subject for runtime in suited for subject in _of_artifact(artifact, runtime, batches)]
    return [Subject(path.name, path, runtime, batch) for runtime in suited for batch in batches]


def _of_artifact(artifact: artifacts.Artifact, runtime: str, batches: Sequence[int]) -> list[Subject]:
    entry, card = artifact.entry or {}, artifact.card or {}
    metrics = entry.get("metrics") or {}
    fixed = entry.get("batch")
    return [
        Subject(
            artifact.path.name,
            artifact.path,
            runtime,
            batch,
            **_about(card, entry["input_shape"][0], entry.get("precision")),
            **_accuracy(metrics),
        )
        for batch in ([fixed] if fixed else batches)
    ]


def _about(card: dict[str, Any], size: int, precision: str | None) -> dict[str, Any]:
    alpha = card.get("width_multiplier")
    try:
        own = head_of(card)
        table = cards.as_trained(network(card["network"]), card, Path(), alpha, own)
        macs = cost(layers_of(table, own, (size, size, card["input_shape"][2]), len(card["classes"]), alpha)).macs
    except UserError:
        macs = None  # a network of a newer version
    same = size == card["input_shape"][0]
    return {
        "network": card["network"],
        "width_multiplier": alpha,
        "resolution": size,
        "precision": precision,
        "macs": (card.get("cost") or {}).get("macs", macs) if same else macs,
    }


def _accuracy(metrics: dict[str, Any]) -> dict[str, Any]:
    name, score = cards.score_in(metrics)
    return {
        "accuracy": metrics.get(score),
        "accuracy_of": f"{metrics['images']:,} evaluation images" if metrics.get("images") else None,
        "score": "top-1" if score == "accuracy" else name,
    }


# -- bare networks --------------------------------------------------------------------------------------------------


def of_networks(
    names: Iterable[str],
    alphas: Iterable[float],
    sizes: Iterable[int] | None,
    targets: Sequence[str] | None,
    precisions: Iterable[str],
    runtimes: Sequence[str] | None,
    batches: Sequence[int],
    directory: Path,
    classes: int = CLASSES,
) -> list[Subject]:
    """Writes files of networks with random weights, which are as fast as trained ones.

    Args:
        names: of networks.
        alphas: width multipliers.
        sizes: pixels; None takes each network's own.
        targets: kinds of files; None takes those of LiteRT, ONNX and OpenVINO that can be written here.
        precisions: of the files.
        runtimes: None runs each file in its own.
        batches: images a call.
        directory: where the files go.
        classes: that they tell apart.

    Raises:
        UserError: one of them does not exist.
    """
    tables = [network(name) for name in names]
    if targets is None:
        targets = writable()
    wanted = variants(targets, precisions)
    for table in tables:
        for alpha in alphas:
            for size in sizes or [table.resolution]:
                check((size, size, 3), classes, alpha)
    return [
        subject
        for table in tables
        for alpha in alphas
        for size in sizes or [table.resolution]
        for subject in of_network(table, alpha, size, wanted, directory, runtimes, batches, classes)
    ]


def writable() -> list[str]:
    """Those of LiteRT, ONNX and OpenVINO that can be written here."""
    names = ("litert", "onnx", "openvino")
    return [name for name in names if all(importlib.util.find_spec(package) for package in TARGETS[name].packages)]


def of_network(
    table: Network,
    alpha: float,
    size: int,
    wanted: Sequence[Variant],
    directory: Path,
    runtimes: Sequence[str] | None = None,
    batches: Sequence[int] = (1,),
    classes: int = CLASSES,
) -> list[Subject]:
    """Writes files of one network with random weights; arguments as for `of_networks`, ``wanted`` are the files."""
    from mobilenets.models.builder import classifier

    model = classifier(table, (size, size, 3), classes, alpha)
    images = np.random.default_rng(0).integers(0, 256, (CALIBRATION, size, size, 3), np.uint8)
    writer = Writer(model, images)
    known = published().get((table.name, alpha, size))
    name = f"{table.title.removeprefix('MobileNet ')} {alpha:g} {size}px"
    macs = cost(write_out(table, (size, size, 3), classes, alpha)).macs
    found = []
    for batch in batches:
        for variant in wanted:
            # LiteRT plans its memory for one number of images; the other files take any.
            fixed = replace(variant, batch=batch) if TARGETS[variant.target].batch else variant
            path, _ = write_quicker(writer, fixed, directory / f"{table.name}_{alpha:g}_{size}")
            about = {
                "network": table.name,
                "width_multiplier": alpha,
                "resolution": size,
                "precision": variant.precision,
                "macs": macs,
            }
            if known and variant.precision == "float32" and classes == CLASSES:
                about |= {"accuracy": known[0] / 100, "accuracy_of": f"ImageNet, published by {known[1]}"}
            for runtime in runtimes_of(path, runtimes):
                found.append(Subject(f"{name} {variant.precision}", path, runtime, batch, **about))
    return found


def published() -> dict[tuple[str, float, int], tuple[float, str]]:
    """Published top-1 on ImageNet in percent, and by whom, by network, width multiplier and resolution."""
    from mobilenets.compare import published as rows

    return {
        (row["network"], row["width_multiplier"], row["resolution"]): (row["top1"], row["source"]) for row in rows()
    }
