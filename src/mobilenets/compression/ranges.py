"""Which range of values an operation's integers should span: the extremes that were seen, or less, with finer steps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mobilenets.compression.scheme import Ranges

PERCENTILE = 99.99
# Of the extremes; each narrower by a twentieth than the one before, down to where hardly a value is left.
NARROWER = 0.95 ** np.arange(60)


@dataclass(frozen=True)
class Seen:
    """What an operation gave on real images.

    Attributes:
        least: of each channel, float32 (channels,).
        most: likewise.
        square: mean of the squares, likewise.
        sample: some of all its values, as many from each image, float32 (values,).
    """

    least: np.ndarray
    most: np.ndarray
    square: np.ndarray
    sample: np.ndarray

    @property
    def extremes(self) -> tuple[float, float]:
        """The least and the greatest value."""
        return float(self.least.min()), float(self.most.max())


def extremes(seen: Seen) -> tuple[float, float]:
    """Every value that was seen, the rarest as well."""
    return seen.extremes


def percentile(seen: Seen) -> tuple[float, float]:
    """All but the ten thousandth of values that lies farthest out, on either side."""
    low, high = seen.extremes
    inner = np.percentile(seen.sample, [100 - PERCENTILE, PERCENTILE])
    return max(low, float(inner[0])), min(high, float(inner[1]))


def least_squares(seen: Seen) -> tuple[float, float]:
    """The range whose rounding and cutting off moves the values least, in the sum of squares (arXiv 2106.08295, 3.1).

    One end after the other is drawn in, the upper one twice, since where the best is depends on the other.
    """
    low, high = seen.extremes
    for end in ("high", "low", "high"):
        if end == "high":
            high = min((each * max(seen.extremes[1], 0) for each in NARROWER), key=lambda at: _moved(seen, low, at))
        else:
            low = min((each * min(seen.extremes[0], 0) for each in NARROWER), key=lambda at: _moved(seen, at, high))
    return float(low), float(high)


def _moved(seen: Seen, low: float, high: float) -> float:
    """Mean square of what 256 steps from ``low`` to ``high``, of which one is zero, change of the sample."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / 255, 1e-8)
    zero = round(-low / step)
    steps = np.clip(np.rint(seen.sample / step), -zero, 255 - zero)
    return float(np.square(steps * step - seen.sample).mean())


ESTIMATORS = {"extremes": extremes, "percentile": percentile, "least squares": least_squares}


def ranges_of(seen: Mapping[str, Seen], estimator: str = "extremes") -> Ranges:
    """The range of every operation.

    Args:
        seen: operation -> what it gave.
        estimator: of `ESTIMATORS`.
    """
    return {name: ESTIMATORS[estimator](each) for name, each in seen.items()}
