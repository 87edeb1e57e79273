"""Which exported file is the fastest on this machine: measured once, and remembered in the card."""

import importlib.util
import statistics
from contextlib import suppress
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.data.loader import available_threads
from mobilenets.deployment.artifacts import Artifact, listed
from mobilenets.deployment.machine import cores
from mobilenets.deployment.runtimes import RUNTIMES
from mobilenets.deployment.worker import Worker
from mobilenets.errors import UserError

# Images a call, where a file takes any number: more do not fit the processor's caches, and run up to a third slower.
BATCH = 4
# These take every core for each call: TensorFlow has one set of threads in a process.
ALONE = ("tensorflow", "keras")
COPIES = 8  # at most, since each holds the weights
ROUNDS, SECONDS = 3, 0.3


def copies(runtime: str, most: int = COPIES) -> tuple[int, int]:
    """How many copies of a network to run at the same time, at most ``most``, and the threads of each.

    Cores that work on images of their own need not wait for each other: on two idle cores about 5 % more images a
    second, and up to half as many again where other programs take part of their time.
    """
    cores = available_threads()
    number = 1 if runtime in ALONE else max(1, min(cores, COPIES, most))
    return number, cores // number


def fastest(directory: Path, card: dict[str, Any], entries: list[dict[str, Any]], measure: bool) -> Artifact | None:
    """The artifact that takes the least time for an image.

    Args:
        directory: the model directory.
        card: its card; what is measured is written into it.
        entries: of the card, among which to choose.
        measure: whether it is worth a second or two a file to know it for this machine and many images; otherwise
            latencies that the card has of this processor decide, and the order of the exports.

    Returns:
        The artifact, verified; None where none can be run here.

    Raises:
        UserError: a file has changed since it was measured.
    """
    artifacts = [listed(directory, card, entry) for entry in entries if _runs_here(entry)]
    if not artifacts:
        return None
    if len(artifacts) == 1:
        return artifacts[0]
    if not measure:
        here = cards.processor()
        return min(
            artifacts,
            key=lambda artifact: (
                artifact.entry["latency_ms"]["median"] / (artifact.entry.get("batch") or 1)
                if artifact.entry["processor"] == here
                else float("inf")
            ),
        )
    times = _times(directory, card, artifacts)
    return min(artifacts, key=lambda artifact: times[artifact.entry["file"]])


def _runs_here(entry: dict[str, Any]) -> bool:
    runtime = RUNTIMES.get(entry.get("runtime"))
    return runtime is not None and importlib.util.find_spec(runtime.package.split(".")[0]) is not None


def _times(directory: Path, card: dict[str, Any], artifacts: list[Artifact]) -> dict[str, float]:
    """Milliseconds an image of every artifact on this machine, if all copies are as fast as one alone."""
    machine = f"{cards.processor()}, {cores()} cores"
    # A card from elsewhere may hold anything.
    remembered = card["speed"] if isinstance(card.get("speed"), dict) else {}
    known = remembered.get(machine)
    known = {key: value for key, value in known.items() if _is_time(value)} if isinstance(known, dict) else {}
    missing = [artifact for artifact in artifacts if known.get(_key(artifact)) is None]
    if missing:
        workers: dict[str, Worker] = {}
        rounds: dict[str, list[float]] = {_key(artifact): [] for artifact in missing}
        try:
            for artifact in missing:
                _, threads = copies(artifact.runtime)
                workers[_key(artifact)] = Worker(artifact.path, artifact.runtime, threads)
            for _ in range(ROUNDS):
                for artifact in missing:
                    worker, number = workers[_key(artifact)], copies(artifact.runtime)[0]
                    batch = worker.about["batch"] or BATCH
                    time = statistics.mean(worker.times(batch, SECONDS)) / batch / number
                    rounds[_key(artifact)].append(time)
        finally:
            for worker in workers.values():
                worker.close()
        known |= {key: round(statistics.median(times), 4) for key, times in rounds.items()}
        card["speed"] = remembered | {machine: known}
        with suppress(UserError):  # a directory that cannot be written is measured anew each time
            # Files may have been written since the card was read.
            cards.write_card(directory, cards.read_card(directory) | {"speed": card["speed"]})
    return {artifact.entry["file"]: known[_key(artifact)] for artifact in artifacts}


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def _key(artifact: Artifact) -> str:
    """Names the file's content too: another file of the same name has another speed."""
    return f"{artifact.entry['file']} {next(iter(artifact.entry['files'].values()))[:12]}"
