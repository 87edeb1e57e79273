"""Files that the public tools make of a Keras model, each as it comes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

AI_EDGE, AI_EDGE_FILE = "litert int8 ai-edge", "ai_edge.tflite"


def write_files(model: Any, images: np.ndarray, directory: Path) -> dict[str, tuple[Path, str, str]]:
    """Writes a model with every tool.

    Args:
        model: a Keras model on the TensorFlow backend.
        images: uint8 (count, height, width, 3), to calibrate on.
        directory: where the files go.

    Returns:
        By tool: path, runtime, and what went wrong ("" where nothing did; a tool that fails is a result too).
    """
    floats = [image[None].astype(np.float32) for image in images]
    found = {}
    for tool, (runtime, name, write) in {
        "litert float32": ("litert", "model.tflite", lambda path: _keras(model, path, "litert")),
        "litert int8": ("litert", "converter.tflite", lambda path: _converter(model, floats, path)),
        AI_EDGE: ("litert", AI_EDGE_FILE, lambda path: _ai_edge(directory, floats, path)),
        "onnx float32": ("onnxruntime", "model.onnx", lambda path: _keras(model, path, "onnx")),
        "onnx int8": ("onnxruntime", "int8.onnx", lambda path: _quantize_static(directory, floats, path)),
        "openvino float32": ("openvino", "model.xml", lambda path: _keras(model, path, "openvino")),
        "openvino int8": ("openvino", "nncf.xml", lambda path: _nncf(directory, floats, path)),
        "savedmodel float32": ("tensorflow", "saved", lambda path: _keras(model, path, "tf_saved_model")),
    }.items():
        error = ""
        try:
            write(str(directory / name))
        except Exception as failure:  # each has exceptions of its own
            error = next(iter(str(failure).splitlines()), type(failure).__name__)[:200]
        found[tool] = (directory / name, runtime, error)
    return found


def _keras(model: Any, path: str, kind: str) -> None:
    model.export(path, format=kind, verbose=False)


def write_per_tensor(model: Any, images: np.ndarray, path: Path) -> None:
    """Writes what TensorFlow's converter makes with one scale for all the weights of a layer."""
    _converter(model, [image[None].astype(np.float32) for image in images], str(path), per_channel=False)


def _converter(model: Any, images: list[np.ndarray], path: str, per_channel: bool = True) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter._experimental_disable_per_channel = not per_channel
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    Path(path).write_bytes(converter.convert())


def _ai_edge(directory: Path, images: list[np.ndarray], path: str) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    source = str(directory / "model.tflite")
    signatures = Interpreter(source).get_signature_list()
    ((signature, names),) = signatures.items()
    made = quantizer.Quantizer(source, recipe.static_wi8_ai8())
    calibrated = made.calibrate({signature: [{names["inputs"][0]: image} for image in images]})
    made.quantize(calibrated, serialize_to_path=path)


def _quantize_static(directory: Path, images: list[np.ndarray], path: str) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = str(directory / "prepared.onnx")
    quant_pre_process(str(directory / "model.onnx"), prepared)
    name = onnx.load(prepared).graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.rest, None)
            return None if image is None else {name: image}

    quantize_static(prepared, path, Reader())


def _nncf(directory: Path, images: list[np.ndarray], path: str) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(str(directory / "model.xml"))
    openvino.save_model(nncf.quantize(model, nncf.Dataset(images)), path)


def run_integers(path: Path, threads: int) -> Callable[[np.ndarray], Any]:
    """A LiteRT file that takes int8, which no runtime of ours guesses the scale of."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    shape: tuple[int, ...] = ()

    def run(images: np.ndarray) -> np.ndarray:
        nonlocal shape
        if images.shape != shape:
            shape = images.shape
            interpreter.resize_tensor_input(source, shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(source, (images ^ 128).view(np.int8))
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return run
