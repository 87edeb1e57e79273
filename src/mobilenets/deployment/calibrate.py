"""Which values every operation gives on real images: what integers must be able to hold."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mobilenets.deployment.graph import Graph
from mobilenets.deployment.scheme import Ranges
from mobilenets.deployment.tflite_file import write_tflite
from mobilenets.quiet import quiet


def calibrate(graph: Graph, images: Iterable[np.ndarray], threads: int = 2) -> Ranges:
    """Runs images through a graph, with LiteRT, and keeps the least and the greatest value of every output.

    The true extremes: on these networks estimators that clip lose 7 to 17 dB against them.

    Args:
        graph: of `mobilenets.deployment.scheme.integer_form`.
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
