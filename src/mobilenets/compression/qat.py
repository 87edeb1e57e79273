"""Quantization-aware training: a model trained as its int8 files compute it."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from mobilenets.compression.quantization import Quantization
from mobilenets.compression.scheme import Ranges
from mobilenets.compression.simulate import Simulation
from mobilenets.data import ImageData
from mobilenets.data.boxes import BoxData
from mobilenets.data.masks import MaskData
from mobilenets.models import keras
from mobilenets.models.boxes import Detections
from mobilenets.training.checkpoint import State
from mobilenets.training.fit import fit
from mobilenets.training.loop import Result
from mobilenets.training.settings import Settings


def simulated(model: keras.Model, ranges: Ranges, floats: Collection[str] = (), weight_bits: int = 8) -> keras.Model:
    """A model as it is computed in integers; it shares the variables of ``model``.

    Takes and returns what ``model`` does: pixel values 0..255, and probabilities (of each pixel, if it is a segmenter)
    or boxes and scores.

    Args:
        model: of `mobilenets.models.tasks.built`.
        ranges: of every operation's output, by calibration or an earlier training.
        floats: operations, or kinds of operations, computed in float32.
        weight_bits: of `mobilenets.compression.scheme.make_scheme`.
    """
    image = keras.Input(model.input_shape[1:], name="image")
    # Named as in any model, since it is trained as any is.
    said = Simulation(model, ranges, floats, weight_bits, name="logits")(image)
    if isinstance(said, list):
        last = Detections.from_config(model.get_layer("detections").get_config())
    else:
        last = keras.layers.Softmax(dtype="float32", name="probabilities")
    return keras.Model(image, last(said))


def train_quantized(
    model: keras.Model,
    data: ImageData | BoxData | MaskData,
    settings: Settings,
    directory: Path,
    state: State,
    ranges: Ranges,
    *,
    floats: Collection[str] = (),
    weight_bits: int = 8,
    fit: Callable[..., Result] = fit,
    **options: Any,
) -> tuple[Result, Quantization, keras.Model]:
    """Trains ``model`` in place, its batch normalization folded and its statistics kept.

    Args:
        model: a trained model.
        data: what to train and evaluate on.
        settings: how.
        directory: where the state is kept.
        state: where to begin.
        ranges: of every operation's output, to begin with.
        floats: operations, or kinds of operations, computed in float32.
        weight_bits: of `mobilenets.compression.scheme.make_scheme`.
        fit: trains a model of this task, of `mobilenets.training.kinds.Kind`.
        **options: of it.

    Returns:
        How the training ended, what the files need to know, and the model as it is computed in integers.
    """
    network = simulated(model, ranges, floats, weight_bits)
    result = fit(network, data, settings, directory, state, from_weights=True, **options)
    trained = network.get_layer("logits").ranges()
    return result, Quantization("qat", trained, sorted(floats), weight_bits), network
