"""How much of a network may be left for its file to be as fast as asked: found by measuring, as NetAdapt does.

NetAdapt (arXiv 1804.03230) makes a network smaller until its latency on the device itself, not its count of
multiply-accumulates, is what was asked. How long a file takes depends on its channels, hardly on its weights; so the
search needs no training.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.compression.quantization import Quantization
from mobilenets.compression.scheme import integer_form
from mobilenets.deployment.calibrate import calibrate
from mobilenets.deployment.latency import interleaved, measure_latency
from mobilenets.deployment.quicker import write_quicker
from mobilenets.deployment.targets import TARGETS, Writer, variants
from mobilenets.deployment.worker import Worker
from mobilenets.errors import UserError
from mobilenets.models.graph import graph_of
from mobilenets.models.tasks import detects

TRIALS = 7  # halvings: the share is then known to less than a hundredth
CLOSE = 0.02  # of the latency asked for; nearer than that is noise


class FileClock:
    """Tells how long candidates take as files, each timed in turns with the file of the network they come from.

    A machine's speed changes within minutes, by a factor of two where others share it; the ratio of two files timed in
    turns does not. So a latency is that ratio times what the whole network took once, at the beginning.

    Args:
        model: the whole network.
        images: uint8, some to choose ranges with, where ``precision`` is int8.
        target: kind of file.
        precision: of it.
        threads: to run with; None takes every core.
        floats: operations that stay in float32 there.
        weight_bits: 8 or 4.
        whole_ms: what the whole network took, where that has been measured before.

    Attributes:
        whole_ms: milliseconds that one image takes in the whole network's file, the median of five rounds.
    """

    def __init__(
        self,
        model: Any,
        images: list,
        target: str,
        precision: str,
        threads: int | None,
        floats: Sequence[str] = (),
        weight_bits: int = 8,
        whole_ms: float | None = None,
    ) -> None:
        self._images, (self._variant,) = images, variants([target], [precision], detector=detects(model))
        self._threads, self._floats, self._weight_bits = threads, tuple(floats), weight_bits
        self._places = ExitStack()
        try:
            self._whole = self._places.enter_context(self._worker(model))
            self.whole_ms = whole_ms or float(measure_latency(self._whole)["median"])
        except BaseException:
            self._places.close()
            raise

    def __enter__(self) -> "FileClock":
        return self

    def __exit__(self, *_: object) -> None:
        self._places.close()

    def __call__(self, model: Any) -> float:
        """Milliseconds that one image takes in a candidate's file."""
        with self._worker(model) as candidate:
            whole, found = interleaved([self._whole, candidate], [1, 1])
        # Means of calls, as the whole network's milliseconds are; neighbours in time go together.
        ratios = [np.mean(one) / np.mean(other) for one, other in zip(found, whole, strict=True)]
        return self.whole_ms * float(np.median(ratios))

    @contextmanager
    def _worker(self, model: Any) -> Iterator[Worker]:
        quantization = None
        if self._variant.precision == "int8":
            ranges = calibrate(integer_form(graph_of(model)), self._images)
            quantization = Quantization("calibrated", ranges, self._floats, self._weight_bits)
        with tempfile.TemporaryDirectory() as temporary:
            writer = Writer(model, quantization=quantization)
            path, _ = write_quicker(writer, self._variant, Path(temporary), self._threads)
            with Worker(path, TARGETS[self._variant.target].runtime, self._threads) as worker:
                yield worker


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
