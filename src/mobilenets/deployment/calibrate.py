"""Which values every operation gives on real images: what integers must be able to hold."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.compression.ranges import Seen, ranges_of
from mobilenets.compression.scheme import Ranges
from mobilenets.data import ImageData
from mobilenets.data.box_loader import BoxEvaluationBatches
from mobilenets.data.boxes import BoxData
from mobilenets.data.loader import EvaluationBatches
from mobilenets.data.mask_loader import MaskEvaluationBatches
from mobilenets.data.masks import MaskData
from mobilenets.deployment.tflite_file import write_tflite
from mobilenets.errors import UserError
from mobilenets.evaluation.known import data_of
from mobilenets.models.operations import Graph
from mobilenets.quiet import quiet

CALIBRATION = 256  # images
SAMPLE = 512  # values of every operation and image


def calibration_images(
    card: dict[str, Any], data: ImageData | BoxData | MaskData, size: int, source: str | None = None
) -> list[np.ndarray]:
    """Images to calibrate on, not those that files are measured on, as the model is shown them.

    Args:
        card: of the model.
        data: that it was trained with.
        size: pixels.
        source: another data set, or None.

    Returns:
        uint8 (size, size, channels) each.

    Raises:
        UserError: there are none.
    """
    if card.get("task") in (cards.DETECT, cards.SEGMENT):
        return _whole_images(data, size, source, card)
    if source:
        other = data_of(card, source)
        split = other.train if len(other.train) else other.val
    elif len(data.train):
        split = data.train
    else:
        raise UserError(
            "int8 needs images to calibrate on, and this model knows none it was trained on; name some "
            "with `mobilenets export RUN --precision int8 --calibrate FOLDER`"
        )
    batches = EvaluationBatches(split.some(CALIBRATION), size, 64, crop=cards.crop(card))
    return [image for batch, _ in batches for image in batch]


def _whole_images(data: BoxData | MaskData, size: int, source: str | None, card: dict[str, Any]) -> list[np.ndarray]:
    """The same for a detector or a segmenter, which see images stretched."""
    data = data_of(card, source) if source else data
    split = data.train if len(data.train) else data.val
    if not len(data.train) and not source:
        raise UserError(
            "int8 needs images to calibrate on, and this model knows none it was trained on; name some with "
            "`mobilenets export RUN --precision int8 --calibrate FOLDER`"
        )
    batches = (BoxEvaluationBatches if isinstance(data, BoxData) else MaskEvaluationBatches)(
        split.some(CALIBRATION), size, 64
    )
    return [image for batch, _ in batches for image in batch]


def calibrate(graph: Graph, images: Iterable[np.ndarray], threads: int = 2) -> Ranges:
    """Keeps the least and the greatest value of every operation's output; arguments as for `observe`.

    The true extremes: estimators that clip lost 7 to 17 dB against them on some of these networks. They helped others,
    which `mobilenets.compression.repair` finds out.
    """
    return ranges_of(observe(graph, images, threads))


def observe(graph: Graph, images: Iterable[np.ndarray], threads: int = 2) -> dict[str, Seen]:
    """Runs images through a graph, with LiteRT, and looks at every operation's output.

    Args:
        graph: of `mobilenets.compression.scheme.integer_form`.
        images: uint8 (height, width, channels), some hundred.
        threads: to compute with.

    Returns:
        Operation -> the extremes of its channels and a sample of its values, the same for the same images.
    """
    from ai_edge_litert.interpreter import Interpreter

    names = [op.name for op in graph.ops]
    with tempfile.TemporaryDirectory() as temporary, quiet():
        path = Path(temporary) / "calibration.tflite"
        write_tflite(graph, path, outputs=names)
        interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
        interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    # Outputs may be listed in another order than asked for; a tensor's own number says which is which.
    targets = [interpreter.get_signature_runner().get_output_details()[name]["index"] for name in names]
    least = [np.float32(np.inf)] * len(names)
    most = [np.float32(-np.inf)] * len(names)
    squares: list[list[np.ndarray]] = [[] for _ in names]
    samples: list[list[np.ndarray]] = [[] for _ in names]
    rng = np.random.default_rng(0)
    for image in images:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        for place, index in enumerate(targets):
            values = interpreter.get_tensor(index)
            channels = values.reshape(-1, values.shape[-1])
            least[place] = np.minimum(least[place], channels.min(axis=0))
            most[place] = np.maximum(most[place], channels.max(axis=0))
            squares[place].append(np.einsum("pc,pc->c", channels, channels) / len(channels))
            samples[place].append(values.ravel()[rng.integers(0, values.size, min(SAMPLE, values.size))])
    found = zip(names, least, most, squares, samples, strict=True)
    return {
        name: Seen(low, high, np.mean(square, axis=0), np.concatenate(sample))
        for name, low, high, square, sample in found
    }
