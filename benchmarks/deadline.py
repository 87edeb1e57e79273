"""How many frames hold a deadline while other programs load the machine, and how accurate they remain.

    sudo apt-get install tuxpaint-stamps-default
    python benchmarks/deadline.py --run runs/deadline     # the result in results/deadline.json and deadline.png

What --run does not hold yet is made first: V1 learns stamps at α 0.25, 0.5 and 0.75 and 96 to 192 pixels in six epochs
(a quarter of an hour on one core that other work shared), and ``mobilenets grid`` measures every network in LiteRT, in
float32 and int8 (two minutes). Six epochs leave the accuracies low, 28 to 39 %, but in the right order, and the speed
does not depend on them. The frames take a minute and a half.

Frames are the evaluation scenes inside pictures of 640×480, as a camera gives them, --frames for each of five phases.
In the phases 0, 1, 2, 4 and again 0 other processes compute without a pause. A frame begins when the one before has
ended, one deadline after that one's begin at the earliest. The same is run with the front's slowest network alone
and with the fastest alone. ``held`` is the share of frames within the deadline; ``accuracy`` the mean of what the grid
has for the networks that ran; ``right`` the share of the frames themselves that were classified right.

Two cores, one thread, 6 ms: 99.5 % of 4000 frames held, at an accuracy of 37.3 % where the grid's best is 39.4 %; with
the load gone, the best network ran again after 51 frames, and an earlier run took 166. The slowest network alone held
84.9 % (62 % with two busy processes), the fastest alone all of them at 28.3 %.
"""

import argparse
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.card import environment, now
from mobilenets.data import load
from mobilenets.data.resizing import resize
from mobilenets.files import write_json
from mobilenets.selection.deadline import DeadlinePredictor, Frame
from mobilenets.selection.deadline_picture import Phase, draw_frames

RESULT = Path(__file__).parent / "results" / "deadline.json"
ALPHAS, SIZES, EPOCHS, BATCH = [0.25, 0.5, 0.75], [96, 128, 160, 192], 6, 32
LOADS = (0, 1, 2, 4, 0)  # busy processes, phase by phase
PICTURES = 210  # different frames; they come again
BUSY = "x = 1\nwhile True: x = x * 5 % 7"


def make(directory: Path, threads: int) -> None:
    """Trains and measures what is missing."""
    from mobilenets.architectures import network
    from mobilenets.selection.grid import Plan, grid
    from mobilenets.training.classify import train
    from mobilenets.training.settings import Settings

    if not (directory / "card.json").is_file():
        settings = Settings(epochs=EPOCHS, batch_size=BATCH, warmup_epochs=1)
        train(load("stamps"), directory, network("v1"), ALPHAS, SIZES, settings, overwrite=True)
    if not (directory / "grid" / "grid.json").is_file():
        plan = Plan(targets=["litert"], threads=threads)
        grid(directory, plan, report=lambda what, done, total: print(what, done, total, file=sys.stderr, flush=True))


def pictures() -> tuple[list[np.ndarray], np.ndarray]:
    """Frames, uint8 (480, 640, 3), and the classes of the scenes in their middle."""
    scenes = load("stamps").val.some(PICTURES)
    frames = []
    for scene in scenes.images:
        frame = np.full((480, 640, 3), 127, np.uint8)
        frame[:, 80:560] = resize(scene, 480, 480)
        frames.append(frame)
    return frames, np.asarray(scenes.labels)


class Fixed:
    """A controller that always takes the same network."""

    def __init__(self, member: int) -> None:
        self.current = member

    def observe(self, ms: float, overhead: float = 0.0) -> int:
        return self.current


def busy(stack: ExitStack, count: int) -> None:
    """Starts processes that compute until the stack is closed."""
    for _ in range(count):
        process = subprocess.Popen([sys.executable, "-c", BUSY])
        stack.callback(process.wait)
        stack.callback(process.kill)


def run(
    predictor: DeadlinePredictor, count: int, frames: list[np.ndarray], labels: np.ndarray
) -> list[tuple[int, list[Frame], float]]:
    """Every phase: its busy processes, its frames, and the share that was classified right."""
    found = []
    for load_now in LOADS:
        with ExitStack() as stack:
            busy(stack, load_now)
            right, due = 0, time.perf_counter()
            for number in range(count):
                time.sleep(max(0.0, due - time.perf_counter()))
                due = time.perf_counter() + predictor.deadline_ms / 1e3
                place = number % len(frames)
                right += int(predictor(frames[place]).argmax()) == labels[place]
            mine = list(predictor.history)[-count:]
            begin = len(found) * count
            mine = [replace(frame, index=begin + number) for number, frame in enumerate(mine)]
            found.append((load_now, mine, float(right / count)))
    return found


def summary(predictor: DeadlinePredictor, phases: list[tuple[int, list[Frame], float]]) -> dict[str, Any]:
    """The numbers of a run."""
    frames = [frame for _, mine, _ in phases for frame in mine]
    last, best = phases[-1][1], len(predictor.members) - 1
    back = next((place for place, frame in enumerate(last) if frame.member == best), None)
    return {
        "frames": len(frames),
        "held": round(float(np.mean([frame.met for frame in frames])), 4),
        "accuracy": _accuracy(predictor, frames),
        "steps": int(np.count_nonzero(np.diff([frame.member for frame in frames]))),
        "frames_until_best_again": back,
        "share_of_best_in_last_half_phase": float(np.mean([frame.member == best for frame in last[len(last) // 2 :]])),
        "phases": [
            {
                "busy_processes": load_now,
                "held": round(float(np.mean([frame.met for frame in mine])), 4),
                "accuracy": _accuracy(predictor, mine),
                "right": round(right, 4),
                "median_ms": round(float(np.median([frame.ms for frame in mine])), 3),
                "p95_ms": round(float(np.percentile([frame.ms for frame in mine], 95)), 3),
                "mean_member": round(float(np.mean([frame.member for frame in mine])), 2),
            }
            for load_now, mine, right in phases
        ],
    }


def _accuracy(predictor: DeadlinePredictor, frames: list[Frame]) -> float:
    return round(float(np.mean([predictor.members[frame.member].accuracy for frame in frames])), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="where the model is kept")
    parser.add_argument("--deadline", type=float, default=6.0, help="ms")
    parser.add_argument("--frames", type=int, default=800, help="of a phase")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default=None, help="of the files; any where it is not given")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    make(options.run, options.threads)
    frames, labels = pictures()
    result: dict[str, Any] = {}
    for name, choose in (("controlled", None), ("slowest", -1), ("fastest", 0)):
        predictor = DeadlinePredictor(options.run, options.deadline, "litert", options.precision, options.threads)
        if choose is not None:
            predictor.controller = Fixed(choose % len(predictor.members))
        for frame in frames[:30]:  # the caches; afterwards all begins anew
            predictor(frame)
        phases = run(predictor, options.frames, frames, labels)
        result[name] = summary(predictor, phases)
        if choose is None:
            members = [asdict(member) for member in predictor.members]
            spans = [(mine[0].index, mine[-1].index + 1, load_now) for load_now, mine, _ in phases]
            shades = [
                Phase(first, end, f"{load_now} busy process{'' if load_now == 1 else 'es'}", load_now / max(LOADS))
                for first, end, load_now in spans
            ]
            shown = [frame for _, mine, _ in phases for frame in mine]
            draw_frames(shown, predictor.members, options.deadline, options.result.with_suffix(".png"), shades)
        print(name, {key: value for key, value in result[name].items() if key != "phases"}, flush=True)
        for phase in result[name]["phases"]:
            print("   ", phase, flush=True)
    write_json(
        options.result,
        {
            "benchmark": "deadline",
            "measured": now(),
            "network": "v1",
            "data": "stamps",
            "deadline_ms": options.deadline,
            "threads": options.threads,
            "members": members,
            "policies": result,
            "environment": environment(),
        },
    )


if __name__ == "__main__":
    main()
