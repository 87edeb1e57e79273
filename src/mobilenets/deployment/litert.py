"""Keras -> LiteRT, through TensorFlow's converter."""

from pathlib import Path

from mobilenets.errors import UserError
from mobilenets.files import writing
from mobilenets.models import keras
from mobilenets.quiet import quiet

INPUT_DTYPES = ("uint8", "float32")


def write_litert(model: keras.Model, path: Path | str, input_dtype: str = "uint8") -> None:
    """Writes a classifier as a float32 ``.tflite`` file that takes one image.

    Preprocessing is inside: the file takes pixel values 0..255, shape (1, height, width, channels), and returns
    probabilities (1, classes). The batch is fixed at 1, with which XNNPACK plans its memory once.

    Args:
        model: of `mobilenets.models.classifier`.
        path: ends in ``.tflite``.
        input_dtype: ``uint8``, what cameras and decoders give, or ``float32``.

    Raises:
        UserError: the backend is not TensorFlow, or ``path`` cannot be written.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError("LiteRT files are written with TensorFlow; set KERAS_BACKEND=tensorflow and run this again")
    if input_dtype not in INPUT_DTYPES:
        raise UserError(f"input_dtype must be one of {', '.join(INPUT_DTYPES)}, not {input_dtype!r}")
    image = keras.Input(batch_shape=(1, *model.input_shape[1:]), dtype=input_dtype, name="image")
    outputs = model(keras.ops.cast(image, "float32"), training=False)
    with writing(path) as temporary, quiet():
        keras.Model(image, outputs).export(temporary, format="litert", verbose=False)
