"""How long images take in a runtime."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from mobilenets.deployment.machine import cores
from mobilenets.deployment.worker import Worker
from mobilenets.errors import UserError

ROUNDS, SECONDS, WARMUP = 5, 0.4, 0.2
PAUSE = 0.05  # seconds in which the threads of the file before stop waiting for more work


def check_turns(rounds: int, seconds: float, threads: Iterable[int | None]) -> None:
    """Checks how files shall be timed.

    Raises:
        UserError: a number is out of its range.
    """
    for count in threads:
        if count is not None and not 1 <= count <= 4 * cores():
            raise UserError(f"--threads must be from 1 to {4 * cores()} on this machine, not {count}")
    if not 1 <= rounds <= 1000:
        raise UserError(f"--rounds must be from 1 to 1000, not {rounds}")
    if not 0.01 <= seconds <= 60:
        raise UserError(f"--seconds must be from 0.01 to 60, not {seconds:g}")


def measure_latency(worker: Worker, batch: int = 1) -> dict[str, Any]:
    """Measures the time from images in memory to their outputs.

    The machine's other work disturbs single calls, so each of 5 rounds repeats the call for 0.4 s; see `summary`.

    Args:
        worker: the loaded file.
        batch: images a call.
    """
    (rounds,) = interleaved([worker], [batch])
    return summary(rounds) | {"threads": worker.about["threads"], "batch": batch}


def interleaved(
    workers: Sequence[Worker],
    batches: Sequence[int],
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[list[float]]]:
    """Times several files in turns, so that whatever disturbs or slows the machine meets them all alike.

    Args:
        workers: loaded files.
        batches: images a call of each.
        rounds: turns of each; every second one goes backwards through the files.
        seconds: of a turn; some calls before, which fill the caches again, do not count.
        progress: called after every turn with how many there have been, and how many there will be.

    Returns:
        For each file its rounds, each a list of milliseconds of the calls.
    """
    order = list(range(len(workers)))
    for index in order:
        workers[index].times(batches[index], WARMUP)
    found: list[list[list[float]]] = [[] for _ in workers]
    for number in range(rounds):
        for index in reversed(order) if number % 2 else order:
            if len(workers) > 1:
                time.sleep(PAUSE)
                workers[index].times(batches[index], seconds / 8)
            found[index].append(workers[index].times(batches[index], seconds))
            if progress:
                progress(sum(map(len, found)), rounds * len(workers))
    return found


def summary(rounds: list[list[float]]) -> dict[str, Any]:
    """What is told of rounds of calls, each in milliseconds.

    Returns:
        ``median``, ``least`` and ``most`` of the rounds' means; ``p50``, ``p95`` and ``p99`` of all calls; ``rounds``
        and ``runs``.
    """
    means = [float(np.mean(times)) for times in rounds]
    p50, p95, p99 = np.percentile(np.concatenate(rounds), [50, 95, 99])
    values = {
        "median": float(np.median(means)),
        "least": min(means),
        "most": max(means),
        "p50": float(p50),
        "p95": float(p95),
        "p99": float(p99),
    }
    return {name: round(value, 4) for name, value in values.items()} | {
        "rounds": len(rounds),
        "runs": sum(map(len, rounds)),
    }
