"""The faster of two forms of a file, where it is not known before which that is."""

from pathlib import Path

import numpy as np

from mobilenets.compression.scheme import FUSED
from mobilenets.deployment.latency import interleaved
from mobilenets.deployment.targets import TARGETS, Variant, Writer
from mobilenets.deployment.worker import Worker

SECONDS = 0.1  # of a turn
FASTER = 1.03  # times as fast that the second form must be; less is noise


def write_quicker(writer: Writer, variant: Variant, directory: Path, threads: int | None = None) -> tuple[Path, str]:
    """Writes a file; of one in int8 for ONNX Runtime, if in doubt, the form that is faster on this machine.

    ONNX Runtime has no hard swish in integers. It goes to float32 and back around each, one after another, while in
    float32 a convolution activates by itself: V3-Large took 5.8 ms in integers and 5.5 in float32 with one thread, 4.1
    and 3.3 with two. So both are timed in turns: computed in integers, and computed in float32 with the same weights,
    stored as integers.

    Args:
        writer: of the model.
        variant: of the file.
        directory: for it.
        threads: to time with; None takes every core.

    Returns:
        The file, and what it computes in: ``float32`` or ``int8``.

    Raises:
        UserError: it cannot be written.
    """
    path = writer.write(variant, directory)
    if not variant.integer:
        return path, "float32"
    if variant.target != "onnx" or all(op.activation in FUSED for op in writer.graph.ops):
        return path, "int8"
    other = writer.write(variant, directory / "weights_only", weights_only=True)
    runtime, batch = TARGETS[variant.target].runtime, variant.batch or 1
    with Worker(path, runtime, threads) as integers, Worker(other, runtime, threads) as floats:
        turns = interleaved([integers, floats], [batch, batch], seconds=SECONDS)
    ratio = np.median([np.mean(one) / np.mean(two) for one, two in zip(*turns, strict=True)])
    if ratio > FASTER:
        other.replace(path)
    else:
        other.unlink()
    other.parent.rmdir()
    return path, "float32" if ratio > FASTER else "int8"
