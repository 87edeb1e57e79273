"""How much of a network may be left for its file to be as fast as asked: found by measuring, as NetAdapt does.

NetAdapt (arXiv 1804.03230) makes a network smaller until its latency on the device itself, not its count of
multiply-accumulates, is what was asked. How long a file takes depends on its channels, hardly on its weights; so the
search needs no training.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mobilenets.compression.quantization import Quantization
from mobilenets.compression.scheme import integer_form
from mobilenets.deployment.calibrate import calibrate
from mobilenets.deployment.latency import measure_latency
from mobilenets.deployment.targets import TARGETS, Variant, Writer
from mobilenets.deployment.worker import Worker
from mobilenets.errors import UserError
from mobilenets.models.graph import graph_of

TRIALS = 7  # halvings: the share is then known to less than a hundredth
CLOSE = 0.02  # of the latency asked for; nearer than that is noise


def file_latency(
    model: Any,
    images: list,
    target: str,
    precision: str,
    threads: int | None,
    floats: Sequence[str] = (),
    weight_bits: int = 8,
) -> float:
    """Milliseconds that one image takes in the file that would be written of a model, the median of five rounds.

    Args:
        model: a classifier.
        images: uint8, some to choose ranges with, where ``precision`` is int8.
        target: kind of file.
        precision: of it.
        threads: to run with; None takes every core.
        floats: operations that stay in float32 there.
        weight_bits: 8 or 4.
    """
    quantization = None
    if precision == "int8":
        ranges = calibrate(integer_form(graph_of(model)), images)
        quantization = Quantization("calibrated", ranges, tuple(floats), weight_bits)
    with tempfile.TemporaryDirectory() as temporary:
        writer = Writer(model, quantization=quantization)
        path = writer.write(Variant(target, precision, batch=TARGETS[target].batch), Path(temporary))
        with Worker(path, TARGETS[target].runtime, threads) as worker:
            return float(measure_latency(worker)["median"])


def share_for(
    target_ms: float, latency_of: Callable[[float], float], say: Callable[[str], None], most: float = 1.0
) -> float:
    """The greatest share of the multiply-accumulates with which a file is as fast as asked.

    Args:
        target_ms: milliseconds an image.
        latency_of: from a share, 0 for the smallest network there is, to the latency measured with it.
        say: is told of each trial.
        most: the share to begin with.

    Raises:
        UserError: even the smallest network takes longer; says how long.
    """

    def tried(share: float) -> float:
        found = latency_of(share)
        say(f"{share:.0%} of the multiply-accumulates: {found:.3g} ms")
        return found

    if tried(most) <= target_ms:
        return most
    least = 0.0
    smallest = tried(least)
    if smallest > target_ms:
        raise UserError(
            f"--target-ms {target_ms:g}: the smallest network that pruning can make of this one takes "
            f"{smallest:.3g} ms here; allow that much, or train with a smaller --alpha or --size"
        )
    for _ in range(TRIALS):
        share = (least + most) / 2
        found = tried(share)
        if found <= target_ms:
            least = share
            if found > target_ms * (1 - CLOSE):
                break
        else:
            most = share
    return least
