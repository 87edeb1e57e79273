"""Which values every operation gives on real images: what integers must be able to hold."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.compression.scheme import Ranges
from mobilenets.data import ImageData, Split
from mobilenets.data.loader import EvaluationBatches
from mobilenets.deployment.tflite_file import write_tflite
from mobilenets.errors import UserError
from mobilenets.evaluation.evaluate import evaluation_data
from mobilenets.models.graph import Graph
from mobilenets.quiet import quiet

CALIBRATION = 256  # images


def calibration_images(card: dict[str, Any], data: ImageData, size: int, source: str | None = None) -> list[np.ndarray]:
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
    if source:
        other = evaluation_data(card, source)
        split = other.train if len(other.train) else other.val
    elif len(data.train):
        split = data.train
    else:
        raise UserError(
            "int8 needs images to calibrate on, and this model knows none it was trained on; name some "
            "with --calibrate FOLDER"
        )
    batches = EvaluationBatches(_some(split), size, 64, crop=cards.crop(card))
    return [image for batch, _ in batches for image in batch]


def _some(split: Split) -> Split:
    chosen = np.sort(np.random.default_rng(0).permutation(len(split))[:CALIBRATION])
    images = split.images
    images = images[chosen] if isinstance(images, np.ndarray) else [images[index] for index in chosen]
    return Split(images, split.labels[chosen])


def calibrate(graph: Graph, images: Iterable[np.ndarray], threads: int = 2) -> Ranges:
    """Runs images through a graph, with LiteRT, and keeps the least and the greatest value of every output.

    The true extremes: on these networks estimators that clip lose 7 to 17 dB against them.

    Args:
        graph: of `mobilenets.compression.scheme.integer_form`.
        images: uint8 (height, width, channels), some hundred.
        threads: to compute with.
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
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for image in images:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        for place, index in enumerate(targets):
            values = interpreter.get_tensor(index)
            low[place] = min(low[place], values.min())
            high[place] = max(high[place], values.max())
    return {name: (float(least), float(most)) for name, least, most in zip(names, low, high, strict=True)}
