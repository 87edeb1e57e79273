"""Running an exported file: one function a runtime, each giving the same kind of callable."""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.deployment.machine import cores
from mobilenets.errors import UserError
from mobilenets.quiet import quiet

LARGEST_FILE = 2**31  # bytes; neither a flatbuffer nor a protobuf can be larger
LARGEST_SIDE = 8192  # pixels; a damaged file may ask for images that no memory holds
LARGEST_IMAGE = 2**28  # values


@dataclass(frozen=True)
class Runner:
    """A file, loaded.

    Attributes:
        runtime: that runs it, a key of `RUNTIMES`.
        input_shape: (height, width, channels) of an image.
        input_dtype: ``uint8`` or ``float32``; pixel values 0..255 either way.
        batch: images a call; None takes any number.
        threads: that it runs on.
        run: from images (batch, height, width, channels), of that type and number, to outputs (batch, …).
    """

    runtime: str
    input_shape: tuple[int, ...]
    input_dtype: str
    batch: int | None
    threads: int
    run: Callable[[np.ndarray], np.ndarray]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Runs any number of images (batch, height, width, channels), 0..255; returns (batch, …).

        Numbers are float32, classes of pixels uint8.
        """
        if images.shape[1:] != self.input_shape:
            raise UserError(f"this file takes images of shape {self.input_shape}, not {images.shape[1:]}")
        images = images.astype(self.input_dtype, copy=False)
        if self.batch is None:
            return self.run(images)
        outputs = []
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            missing = self.batch - len(part)
            if missing:
                part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
            outputs.append(self.run(part)[: self.batch - missing])
        return np.concatenate(outputs)


def load(path: Path | str, runtime: str | None = None, threads: int | None = None) -> Runner:
    """Loads a file into a runtime.

    Args:
        path: ``.tflite``, ``.onnx``, ``.xml`` of OpenVINO, a SavedModel's directory or ``.keras``.
        runtime: a key of `RUNTIMES` that takes such files; None takes the file's own.
        threads: None takes every core that this process may use.

    Raises:
        UserError: the file is missing, damaged, of a kind that the runtime does not take or none for images, or the
            runtime is not installed. What fails later, while it runs, is a UserError too.
    """
    path = Path(path)
    runtime = runtime or runtime_of(path)
    check_runtime(path, runtime)
    if not path.exists():
        raise UserError(f"{path}: no such file; write it with `mobilenets export`")
    if path.is_file() and path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{path}: larger than any file of this kind")
    entry = RUNTIMES[runtime]
    require(entry.package)
    threads = threads or cores()
    try:
        with quiet():
            runner = entry.load(path, threads)
    except UserError:
        raise
    except Exception as error:  # each runtime has exceptions of its own, some of them of C++
        raise UserError(f"{path}: damaged, or not a file that {entry.title} can load ({_reason(error)})") from error
    _check_input(path, runner)
    return replace(runner, run=_checked(path, entry.title, runner.run))


def _check_input(path: Path, runner: Runner) -> None:
    """Checks that a file takes images, with pixel values as they are."""
    shape = runner.input_shape
    sides = all(isinstance(side, int) and 0 < side <= LARGEST_SIDE for side in shape)
    if len(shape) != 3 or not sides or math.prod(shape) > LARGEST_IMAGE:
        raise UserError(f"{path}: takes values of shape {shape}, not images of one size (height, width, channels)")
    if runner.input_dtype not in ("uint8", "float32"):
        raise UserError(f"{path}: takes {runner.input_dtype} values, where pixels are uint8 or float32, 0..255")
    if runner.batch is not None and runner.batch < 1:
        raise UserError(f"{path}: damaged, it takes {runner.batch} images a call")


def _checked(path: Path, title: str, run: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    def checked(images: np.ndarray) -> np.ndarray:
        try:
            outputs = run(images)
        except Exception as error:  # a damaged file may load and fail only now
            raise UserError(f"{path}: damaged, {title} fails to run it ({_reason(error)})") from error
        if outputs.dtype not in (np.float32, np.uint8) or outputs.shape[:1] != (len(images),):
            raise UserError(f"{path}: gives {outputs.dtype} values of shape {outputs.shape} for {len(images)} images")
        return outputs

    return checked


def _reason(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def runtime_of(path: Path | str) -> str:
    """The runtime that a file was written for.

    Raises:
        UserError: it is none of ours.
    """
    path = Path(path)
    if path.is_dir():
        return "tensorflow"
    for name, entry in RUNTIMES.items():
        if path.suffix == entry.suffixes[0]:
            return name
    known = ", ".join(entry.suffixes[0] for entry in RUNTIMES.values() if entry.suffixes[0])
    raise UserError(f"{path}: no file that can be run; there are {known}, and SavedModel directories")


def check_runtime(path: Path, runtime: str) -> None:
    """Checks that a runtime exists and takes such files.

    Raises:
        UserError: it does not.
    """
    if runtime not in RUNTIMES:
        raise UserError(f"--runtime must be one of {', '.join(RUNTIMES)}, not {runtime!r}")
    suffix = "" if path.is_dir() else path.suffix
    if suffix not in RUNTIMES[runtime].suffixes:
        takes = ", ".join(suffix or "SavedModel directories" for suffix in RUNTIMES[runtime].suffixes)
        raise UserError(f"{path}: {RUNTIMES[runtime].title} does not take such files, but {takes}")


def require(package: str) -> None:
    """Imports an optional package.

    Raises:
        UserError: it is not installed; names the extra that brings it.
    """
    try:
        with quiet():
            importlib.import_module(package)
    except ImportError as error:
        name = EXTRAS.get(package.split(".")[0], "")
        command = f"pip install 'mobilenets[{name}]'" if name else f"pip install {package.split('.')[0]}"
        raise UserError(f"{package.split('.')[0]} is not installed; {command}") from error


# -- one function a runtime -----------------------------------------------------------------------------------------


def _only(path: Path, what: str, found: Any) -> Any:
    """The one input or output of a file."""
    found = list(found)
    if len(found) != 1:
        raise UserError(f"{path}: has {len(found)} {what}s, where one is expected")
    return found[0]


def _load_litert(path: Path, threads: int) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise UserError(f"{path}: damaged or not a LiteRT file")
    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    source = _only(path, "input", interpreter.get_input_details())
    target = _only(path, "output", interpreter.get_output_details())
    if not len(source["shape"]):
        raise UserError(f"{path}: takes a single number, not images")
    batch = None if source["shape_signature"][0] < 0 else int(source["shape"][0])
    current = int(source["shape"][0])

    def run(images: np.ndarray) -> np.ndarray:
        nonlocal current
        if len(images) != current:
            interpreter.resize_tensor_input(source["index"], images.shape)
            interpreter.allocate_tensors()
            current = len(images)
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return Runner("litert", tuple(source["shape"][1:].tolist()), source["dtype"].__name__, batch, threads, run)


def _load_onnxruntime(path: Path, threads: int) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = _only(path, "input", session.get_inputs())
    target = _only(path, "output", session.get_outputs())
    if not source.shape:
        raise UserError(f"{path}: takes a single number, not images")
    batch = source.shape[0] if isinstance(source.shape[0], int) else None
    dtype = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}.get(source.type, source.type)

    def run(images: np.ndarray) -> np.ndarray:
        return session.run([target.name], {source.name: images})[0]

    return Runner("onnxruntime", tuple(source.shape[1:]), dtype, batch, threads, run)


def _load_openvino(path: Path, threads: int) -> Runner:
    import openvino

    core = openvino.Core()
    settings = {
        # Its default on processors with bfloat16 is 1.4 to 1.9 times slower for these networks, and less exact.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Otherwise it binds the threads of every copy in a process to the same first cores.
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
    request = compiled.create_infer_request()
    source = _only(path, "input", compiled.inputs)
    _only(path, "output", compiled.outputs)
    shape = source.get_partial_shape()
    if shape.rank.is_dynamic or not len(shape):
        raise UserError(f"{path}: takes values of shape {shape}, not images")
    batch, *sides = (None if side.is_dynamic else side.get_length() for side in shape)
    dtype = source.get_element_type().to_dtype().name

    def run(images: np.ndarray) -> np.ndarray:
        request.infer([openvino.Tensor(np.ascontiguousarray(images), shared_memory=True)])
        return request.get_output_tensor().data.copy()

    return Runner("openvino", tuple(sides), dtype, batch, threads, run)


def _load_tensorflow(path: Path, threads: int) -> Runner:
    import tensorflow as tf

    if not (path / "saved_model.pb").is_file():
        raise UserError(f"{path}: not a SavedModel, it holds no saved_model.pb")
    _set_threads(tf, threads)
    model = tf.saved_model.load(str(path))
    if "serving_default" not in getattr(model, "signatures", {}):
        raise UserError(f"{path}: has no signature serving_default, so nobody knows how to call it")
    function = model.signatures["serving_default"]
    name, source = _only(path, "input", function.structured_input_signature[1].items())
    output, _ = _only(path, "output", function.structured_outputs.items())
    if not source.shape.rank:
        raise UserError(f"{path}: takes values of shape {source.shape}, not images")

    def run(images: np.ndarray) -> np.ndarray:
        return function(**{name: tf.constant(images)})[output].numpy()

    run.keep = model  # a signature alone does not keep its variables alive
    return Runner("tensorflow", tuple(source.shape[1:]), source.dtype.name, source.shape[0], threads, run)


def _load_keras(path: Path, threads: int) -> Runner:
    import keras

    from mobilenets.evaluation.inference import predictor
    from mobilenets.models.saving import load_model

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        _set_threads(tf, threads)
    model = load_model(path)
    return Runner("keras", tuple(model.input_shape[1:]), "uint8", None, threads, predictor(model))


def _set_threads(tf, threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        pass  # TensorFlow has begun already in this process, with all cores


@dataclass(frozen=True)
class Runtime:
    """A runtime: what people call it, what it takes (its own kind first), the package it needs, how it loads."""

    title: str
    suffixes: tuple[str, ...]
    package: str
    load: Callable[[Path, int], Runner]


RUNTIMES = {
    "litert": Runtime("LiteRT", (".tflite",), "ai_edge_litert.interpreter", _load_litert),
    "onnxruntime": Runtime("ONNX Runtime", (".onnx",), "onnxruntime", _load_onnxruntime),
    "openvino": Runtime("OpenVINO", (".xml", ".onnx", ".tflite"), "openvino", _load_openvino),
    "tensorflow": Runtime("TensorFlow", ("",), "tensorflow", _load_tensorflow),
    "keras": Runtime("Keras", (".keras",), "keras", _load_keras),
}
EXTRAS = {"onnx": "onnx", "onnxruntime": "onnx", "openvino": "openvino"}  # package -> the extra that brings it
