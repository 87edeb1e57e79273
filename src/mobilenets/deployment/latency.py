"""How long one image takes."""

import time
from typing import Any

import numpy as np

from mobilenets.deployment.runtimes import Runner


def measure_latency(runner: Runner, rounds: int = 5, seconds: float = 0.4, warmup: float = 0.2) -> dict[str, Any]:
    """Measures the time from an image in memory to its output, one image at a time.

    The machine's other work disturbs single runs, so each round repeats the image for ``seconds``; ``median`` is
    the median of the rounds' means, the percentiles are over all runs.

    Args:
        runner: the loaded file.
        rounds: how many.
        seconds: length of each.
        warmup: seconds before the first, not counted.

    Returns:
        ``median``, ``p50``, ``p95`` and ``p99`` in milliseconds, ``threads``, ``rounds``, ``runs``.
    """
    image = np.random.default_rng(0).integers(0, 256, runner.input_shape, np.uint8)
    _repeat(runner, image, warmup)
    runs = [_repeat(runner, image, seconds) for _ in range(rounds)]
    times = np.concatenate(runs)
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    return {
        "median": round(float(np.median([run.mean() for run in runs])), 4),
        "p50": round(float(p50), 4),
        "p95": round(float(p95), 4),
        "p99": round(float(p99), 4),
        "threads": runner.threads,
        "rounds": rounds,
        "runs": len(times),
    }


def _repeat(runner: Runner, image: np.ndarray, seconds: float) -> np.ndarray:
    """Milliseconds of each run until ``seconds`` have passed; at least one run."""
    times = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        runner.invoke(image)
        times.append((time.perf_counter() - began) * 1e3)
    return np.array(times)
