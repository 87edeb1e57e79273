"""What can be exported to, and the file of each."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.compression.quantization import Quantization
from mobilenets.compression.scheme import Scheme, in_pairs, integer_form, is_bytes, make_scheme, whole_mean
from mobilenets.deployment.calibrate import calibrate
from mobilenets.deployment.class_map import class_map
from mobilenets.deployment.decode_boxes import suppressed
from mobilenets.deployment.runtimes import require
from mobilenets.deployment.tflite_file import write_tflite
from mobilenets.errors import UserError
from mobilenets.models.graph import graph_of
from mobilenets.models.operations import Graph

PRECISIONS = ("float32", "float16", "int8")
INPUT_DTYPES = ("uint8", "float32")
LARGEST_BATCH = 1024
BYTE_STEP = 1 + 2**-10
ONNX_INT4 = (1, 23)  # the first onnxruntime that reads them; LiteRT 2.1 and OpenVINO 2025.0, the oldest taken, do too


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        title: what people call it.
        runtime: that it is for, a key of `mobilenets.deployment.runtimes.RUNTIMES`.
        suffix: of its name; a SavedModel is a directory and has none.
        batch: images a call where nobody says: 1, or None for any number.
        packages: needed to write it.
    """

    title: str
    runtime: str
    suffix: str
    batch: int | None
    packages: tuple[str, ...] = ()


TARGETS = {
    # With one image a call XNNPACK plans its memory once, and OpenVINO fuses more: V3-Large in int8 is a sixth faster.
    "litert": Target("LiteRT", "litert", ".tflite", 1),
    "onnx": Target("ONNX", "onnxruntime", ".onnx", None, ("onnx", "onnxruntime")),
    "openvino": Target("OpenVINO", "openvino", ".xml", 1, ("openvino", "onnx")),
    "savedmodel": Target("SavedModel", "tensorflow", "", None, ("tensorflow",)),
}


def target_of(runtime: str) -> str:
    """The kind of file that is written for a runtime.

    Raises:
        UserError: there is none.
    """
    for name, kind in TARGETS.items():
        if kind.runtime == runtime:
            return name
    known = ", ".join(kind.runtime for kind in TARGETS.values())
    raise UserError(f"--runtime {runtime}: networks are measured as files, which are written for {known}")


@dataclass(frozen=True)
class Variant:
    """A file that can be written.

    Attributes:
        target: a key of `TARGETS`.
        precision: of `PRECISIONS`.
        input_dtype: of `INPUT_DTYPES`.
        batch: images a call; None for any number.
        size: pixels of the images' side, where it is not the model's own.
        final: of a detector: whether the file itself keeps the best box of each object alone.
        class_map: of a segmenter: whether it gives the likeliest class of each pixel instead of probabilities.
    """

    target: str
    precision: str = "float32"
    input_dtype: str = "uint8"
    batch: int | None = 1
    size: int | None = None
    final: bool = False
    class_map: bool = False

    @property
    def name(self) -> str:
        """The file's name: ``model`` and what is not as usual."""
        kind = TARGETS[self.target]
        parts = ["model" if kind.suffix else "saved_model"]
        if self.precision != "float32":
            parts.append(self.precision)
        if self.input_dtype != "uint8":
            parts.append(f"{self.input_dtype}_input")
        if self.size:
            parts.append(f"{self.size}px")
        if self.class_map:
            parts.append("classes")
        if self.batch != (1 if self.final else kind.batch):
            parts.append(f"batch{self.batch}" if self.batch else "dynamic")
        return "_".join(parts) + kind.suffix

    @property
    def integer(self) -> bool:
        """Whether it is made to compute in integers; a SavedModel computes in float32, whatever its weights are."""
        return self.precision == "int8" and self.target != "savedmodel"


def variants(
    targets: Iterable[str],
    precisions: Iterable[str],
    input_dtype: str = "uint8",
    batch: str | int | None = None,
    size: int | None = None,
    detector: bool = False,
    class_map: bool = False,
) -> list[Variant]:
    """Every combination.

    Args:
        targets: keys of `TARGETS`.
        precisions: of `PRECISIONS`.
        input_dtype: of `INPUT_DTYPES`.
        batch: images a call, ``dynamic``, or None for what suits each target.
        size: pixels, where it is not the model's own.
        detector: whether the model is one; its files take one image a call where nobody says, and report final boxes.
            Those that take several leave that to whoever runs them.
        class_map: of a segmenter: whether files give the likeliest class of each pixel instead of probabilities.

    Raises:
        UserError: one does not exist, or its package is not installed.
    """
    if batch not in (None, "dynamic"):
        if not str(batch).isdecimal() or not 1 <= int(batch) <= LARGEST_BATCH:
            raise UserError(f"--batch must be dynamic or from 1 to {LARGEST_BATCH}, not {batch}")
        batch = int(batch)
    found = []
    for target in targets:
        if target not in TARGETS:
            raise UserError(f"--to {target}: cannot be written; choose of {', '.join(TARGETS)}")
        for package in TARGETS[target].packages:
            require(package)
        for precision in precisions:
            if precision not in PRECISIONS:
                raise UserError(f"--precision must be of {', '.join(PRECISIONS)}, not {precision!r}")
            if input_dtype not in INPUT_DTYPES:
                raise UserError(f"--input must be {' or '.join(INPUT_DTYPES)}, not {input_dtype!r}")
            usual = 1 if detector else TARGETS[target].batch
            count = usual if batch is None else None if batch == "dynamic" else batch
            found.append(Variant(target, precision, input_dtype, count, size, detector and count == 1, class_map))
    if not found:
        raise UserError("--to and --precision must name at least one file to write")
    return found


def require_int4(targets: Iterable[str]) -> None:
    """Checks that files whose weights have 4 bits can be run here.

    Raises:
        UserError: the runtime of one does not know such weights.
    """
    if "onnx" not in targets:
        return
    import onnxruntime

    found = onnxruntime.__version__
    if tuple(map(int, found.split(".")[:2])) < ONNX_INT4:
        least = ".".join(map(str, ONNX_INT4))
        raise UserError(
            f"--to onnx: weights of 4 bits need onnxruntime {least}, this is {found}; pip install -U onnxruntime"
        )


class Writer:
    """Writes a model in any variant; what several need is computed once.

    Args:
        model: a functional Keras model.
        images: uint8 (height, width, channels), to calibrate int8 on.
        quantization: how the model was trained to be computed in int8; then nothing is calibrated.
    """

    def __init__(self, model: Any, images: Iterable[np.ndarray] = (), quantization: Quantization | None = None) -> None:
        self._model, self._images, self._quantization = model, images, quantization

    @cached_property
    def graph(self) -> Graph:
        """The model, folded."""
        return graph_of(self._model)

    @cached_property
    def integer(self) -> tuple[Graph, Scheme]:
        """The graph in the form for integers, and how it is computed in them."""
        return self._scheme(integer_form(self.graph))

    @cached_property
    def whole_integer(self) -> tuple[Graph, Scheme]:
        """The graph as OpenVINO computes it in integers, which activates before it rounds; and how."""
        graph, scheme = self._scheme(whole_mean(self.graph))
        scheme = in_pairs(graph, scheme)
        # It would see that an image's bytes are integers already, and then compute the first convolution in float32.
        # A step that is longer by a thousandth rounds every byte to itself.
        bytes_of = {op.name: (BYTE_STEP, scheme.points[op.name][1]) for op in graph.ops if is_bytes(op)}
        return graph, replace(scheme, points=scheme.points | bytes_of)

    def _scheme(self, graph: Graph) -> tuple[Graph, Scheme]:
        if self._quantization:
            return graph, self._quantization.scheme(graph)
        return graph, make_scheme(graph, calibrate(graph, self._images))

    def write(self, variant: Variant, directory: Path, weights_only: bool = False) -> Path:
        """Writes a file into ``directory``; returns its path.

        Args:
            variant: of the file.
            directory: for it.
            weights_only: of int8 in ONNX: store the weights so, and compute in float32.

        Raises:
            UserError: it cannot be written.
        """
        path = directory / variant.name
        path.parent.mkdir(parents=True, exist_ok=True)
        graph, scheme = self.graph, None
        if variant.integer:
            graph, scheme = self.whole_integer if variant.target == "openvino" else self.integer
        graph = suppressed(graph) if variant.final else class_map(graph) if variant.class_map else graph
        half = variant.precision == "float16"
        options = {"input_dtype": variant.input_dtype, "batch": variant.batch}
        if variant.target == "litert":
            write_tflite(graph, path, scheme=scheme, half=half, **options)
        elif variant.target == "savedmodel":
            from mobilenets.deployment.savedmodel_file import write_savedmodel

            write_savedmodel(graph, path, precision=variant.precision, **options)
        elif variant.target == "onnx":
            from mobilenets.deployment.onnx_file import write_onnx

            if scheme:
                scheme = replace(scheme, weights_only=True) if weights_only else in_pairs(graph, scheme)
            write_onnx(graph, path, scheme=scheme, half=half, **options)
        else:
            _write_openvino(graph, path, scheme, half, options)
        return path


def _write_openvino(graph: Graph, path: Path, scheme: Scheme | None, half: bool, options: dict[str, Any]) -> None:
    import openvino

    from mobilenets.deployment.onnx_file import write_onnx

    with tempfile.TemporaryDirectory() as temporary:
        between = Path(temporary) / "model.onnx"
        write_onnx(graph, between, scheme=scheme, **options)
        model = openvino.Core().read_model(str(between))
        openvino.save_model(model, str(path), compress_to_fp16=half)
        del model  # it may keep the file's weights mapped, which some systems then do not remove
