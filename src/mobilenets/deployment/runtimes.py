"""Running an exported file: one function a runtime, each giving a callable."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilenets.errors import UserError
from mobilenets.quiet import quiet

LARGEST_FILE = 2**31  # bytes; a flatbuffer cannot be larger


@dataclass(frozen=True)
class Runner:
    """An exported file, loaded.

    Attributes:
        input_shape: (height, width, channels).
        input_dtype: ``uint8`` or ``float32``.
        output_shape: of one image.
        threads: that it runs on.
        invoke: runs the file once on one image (height, width, channels), 0..255, and returns its output.
    """

    input_shape: tuple[int, ...]
    input_dtype: str
    output_shape: tuple[int, ...]
    threads: int
    invoke: Callable[[np.ndarray], np.ndarray]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Runs a batch (batch, height, width, channels), image by image; returns (batch, …) float32."""
        if images.shape[1:] != self.input_shape:
            raise UserError(f"this file takes images of shape {self.input_shape}, not {images.shape[1:]}")
        outputs = np.empty((len(images), *self.output_shape), np.float32)
        for index, image in enumerate(images):
            outputs[index] = self.invoke(image)
        return outputs


def load_litert(path: Path | str, threads: int | None = None) -> Runner:
    """Loads a ``.tflite`` file into LiteRT with XNNPACK.

    Args:
        path: the file.
        threads: None takes every core.

    Raises:
        UserError: the file is missing, damaged, or none of an image classifier's.
    """
    from ai_edge_litert.interpreter import Interpreter

    path = Path(path)
    threads = threads or os.cpu_count() or 1
    if not path.is_file():
        raise UserError(f"{path}: no such file; write it with `mobilenets export`")
    if path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{path}: larger than any LiteRT file")
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise UserError(f"{path}: damaged or not a LiteRT file")
    try:
        with quiet():
            interpreter = Interpreter(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
        (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path}: LiteRT cannot load it ({str(error).splitlines()[0]})") from error
    dtype = np.dtype(source["dtype"])

    def invoke(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], image[None].astype(dtype, copy=False))
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])[0]

    return Runner(tuple(source["shape"][1:].tolist()), dtype.name, tuple(target["shape"][1:].tolist()), threads, invoke)
