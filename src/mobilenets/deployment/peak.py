"""How many multiply-accumulates a second this machine can do at all: what a file's speed is held against."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mobilenets.compression.scheme import integer_form, make_scheme
from mobilenets.deployment.subjects import Subject, installed
from mobilenets.deployment.tflite_file import write_tflite
from mobilenets.models.operations import IMAGE, Graph, Op

# Wide 1x1 convolutions are matrix products, the best case of every runtime: 822 million multiply-accumulates that
# read some 6 MB. Several in a row, so that converting the first one's input costs nearly nothing.
SIDE, CHANNELS, LAYERS = 28, 512, 4
MACS = SIDE**2 * CHANNELS**2 * LAYERS


def peak_subjects(directory: Path, precisions: Iterable[str | None]) -> list[Subject]:
    """Writes files of wide 1x1 convolutions, to be timed beside others: the fastest of them is the machine's peak.

    Args:
        directory: where the files go.
        precisions: of the others; float16 files compute in float32.
    """
    found = []
    for precision in dict.fromkeys(map(computed_in, precisions)):
        path = directory / f"peak_{precision}.tflite"
        graph = integer_form(_graph())
        scheme = make_scheme(graph, {op.name: (0, 6) for op in graph.ops})
        write_tflite(graph, path, input_dtype="float32", scheme=scheme if precision == "int8" else None)
        # Either runtime takes the file, and which is faster differs by processor.
        for runtime in filter(installed, ("litert", "openvino")):
            found.append(Subject("peak", path, runtime, precision=precision, macs=MACS, peak=True))
    return found


def computed_in(precision: str | None) -> str:
    """What a file of a precision computes in, for the most part."""
    return "int8" if precision == "int8" else "float32"


def _graph() -> Graph:
    rng = np.random.default_rng(0)
    # Something has to stand before the first convolution, as the scaling of pixels does in networks.
    half = np.full(CHANNELS, 0.5, np.float32)
    ops = [Op("shift", "affine", (IMAGE,), (SIDE, SIDE, CHANNELS), bias=half)]
    for index in range(LAYERS):
        kernel = rng.normal(0, (2 / CHANNELS) ** 0.5, (1, 1, CHANNELS, CHANNELS)).astype(np.float32)
        bias, shape = np.zeros(CHANNELS, np.float32), (SIDE, SIDE, CHANNELS)
        ops.append(Op(f"conv{index}", "conv", (ops[-1].name,), shape, kernel=kernel, bias=bias, activation="relu6"))
    return Graph((SIDE, SIDE, CHANNELS), tuple(ops))
