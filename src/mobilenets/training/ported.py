"""``mobilenets weights``: a model directory from another program's weights."""

from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.architectures import SMALL_IMAGE, Head, Network, SegmentationHead
from mobilenets.data.imagenet import class_names
from mobilenets.data.names import shown
from mobilenets.errors import UserError
from mobilenets.evaluation.evaluate import publish
from mobilenets.files import sha256
from mobilenets.models import keras
from mobilenets.models.port_detector import port_detector
from mobilenets.models.port_segmenter import port_segmenter
from mobilenets.models.porting import port
from mobilenets.models.saving import save_model
from mobilenets.models.sources import NORMALIZATIONS, source_of

LARGEST_LIST = 2**20  # bytes of a file of class names


def write_ported(
    path: Path | str,
    out: Path | str,
    network: Network,
    source: str,
    width_multiplier: float = 1.0,
    size: int | None = None,
    *,
    normalization: str | None = None,
    classes: Path | str | None = None,
    overwrite: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Ports a checkpoint into a model directory.

    Args:
        path: ``.pth``, ``.pt``, ``.safetensors``, ``.keras`` or ``.h5``.
        out: the directory to write; it must not hold a model yet, unless ``overwrite``.
        network: that the file holds.
        source: the program that wrote it: keras, torchvision, timm or timm-tf.
        width_multiplier: of the file.
        size: pixels of the side of the square images; None takes those of the paper.
        normalization: ``imagenet`` or ``inception``, where the weights expect another than the source's usual.
        classes: a file with one class name a line; None takes ImageNet's for 1000 classes, else numbers.
        overwrite: replace the model that ``out`` holds.
        command: as the user typed it, for the card.

    Returns:
        The card.

    Raises:
        UserError: the file cannot be read or is not of this network, or ``out`` cannot be used.
    """
    path, out = Path(path), Path(out)
    _check(normalization, size)
    program = source_of(source, network)
    _require_free(out, overwrite, path, classes)
    names = _read_names(Path(classes)) if classes else None
    model, network = port(path, network, program, width_multiplier, size, normalization)
    count = model.output_shape[-1]
    names = names or class_names(count)
    if len(names) != count:
        raise UserError(f"{classes}: names {len(names)} classes, but the weights tell {count} apart")
    card = cards.begin(network, width_multiplier, model.input_shape[1], names, command, program.crop)
    return _write(model, out, card, source, path)


def write_ported_dense(
    path: Path | str,
    out: Path | str,
    network: Network,
    head: Head | SegmentationHead,
    source: str,
    width_multiplier: float = 1.0,
    size: int | None = None,
    *,
    normalization: str | None = None,
    classes: Path | str | None = None,
    overwrite: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Ports a checkpoint of a detector or a segmenter into a model directory.

    torchvision stretches images to the square for detectors as we do, but bilinearly whatever their size; we average
    where they shrink. So what is found in larger images differs; in those of just that size it is the same. For
    segmenters it brings the shorter side to 520 pixels.

    Args:
        path: ``.pth``, ``.pt`` or ``.safetensors``.
        out: the directory to write; it must not hold a model yet, unless ``overwrite``.
        network: that the file holds.
        head: that the file holds.
        source: the program that wrote it: torchvision.
        width_multiplier: of the file.
        size: pixels of the side of the square images; None takes 320, of a segmenter 256.
        normalization: ``imagenet`` or ``inception``, where the weights expect another than the source's usual.
        classes: a file with one class name a line, of a detector without background; None takes COCO's where a
            detector has 90 labels, VOC's where a segmenter has 21, else numbers.
        overwrite: replace the model that ``out`` holds.
        command: as the user typed it, for the card.

    Returns:
        The card.

    Raises:
        UserError: the file cannot be read or is not of this network and head, or ``out`` cannot be used.
    """
    path, out = Path(path), Path(out)
    _check(normalization, size)
    program = source_of(source, network, head)
    _require_free(out, overwrite, path, classes)
    names = _read_names(Path(classes)) if classes else None
    read = port_segmenter if isinstance(head, SegmentationHead) else port_detector
    model, network, names = read(path, network, head, program, width_multiplier, size, normalization, names)
    card = cards.begin(network, width_multiplier, model.input_shape[1], names, command, head=head)
    return _write(model, out, card, source, path)


def _check(normalization: str | None, size: int | None) -> None:
    if size is not None and size < SMALL_IMAGE:
        raise UserError(
            f"--size {size}: below {SMALL_IMAGE} pixels the first layer keeps stride 1, where these weights had 2; "
            "port them at a larger size, and train from them with `mobilenets train --weights`"
        )
    if normalization is not None and normalization not in NORMALIZATIONS:
        raise UserError(f"--normalization must be one of {', '.join(NORMALIZATIONS)}, not {normalization!r}")


def _require_free(out: Path, overwrite: bool, path: Path, classes: Path | str | None) -> None:
    cards.require_apart(out, file=path, classes=classes)
    if not overwrite:
        cards.require_new(out)


def _write(model: keras.Model, out: Path, card: dict[str, Any], source: str, path: Path) -> dict[str, Any]:
    card = card | {"data": {}, "origin": {"program": source, "file": path.name, "sha256": sha256(path)}}
    cards.clear(out)
    save_model(model, out / cards.MODEL)
    publish(out, card)
    return card


def _read_names(path: Path) -> list[str]:
    try:
        if path.stat().st_size > LARGEST_LIST:
            raise UserError(f"{path}: too large for a list of class names")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    names = [shown(line.strip()) for line in lines if line.strip()]
    if len(set(names)) != len(names):
        raise UserError(f"{path}: a class name stands twice")
    return names
