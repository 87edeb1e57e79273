"""How long images take in a runtime."""

from typing import Any

import numpy as np

from mobilenets.deployment.worker import Worker

ROUNDS, SECONDS, WARMUP = 5, 0.4, 0.2


def measure_latency(worker: Worker, batch: int = 1) -> dict[str, Any]:
    """Measures the time from images in memory to their outputs.

    The machine's other work disturbs single calls, so each of 5 rounds repeats the call for 0.4 s; see `summary`.

    Args:
        worker: the loaded file.
        batch: images a call.
    """
    worker.times(batch, WARMUP)
    return summary([worker.times(batch, SECONDS) for _ in range(ROUNDS)]) | {"threads": worker.about["threads"]}


def summary(rounds: list[list[float]]) -> dict[str, Any]:
    """What is told of rounds of calls, each in milliseconds.

    Returns:
        ``median``, of the rounds' means; ``p50``, ``p95`` and ``p99`` of all calls; ``rounds`` and ``runs``.
    """
    times = np.concatenate(rounds)
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    return {
        "median": round(float(np.median([np.mean(times) for times in rounds])), 4),
        "p50": round(float(p50), 4),
        "p95": round(float(p95), 4),
        "p99": round(float(p99), 4),
        "rounds": len(rounds),
        "runs": len(times),
    }
