"""Whether one training for all widths and resolutions is as good as one for each, and what it costs.

    # five and a half hours on one core; the result in results/elastic.json
    python benchmarks/elastic.py --runs runs/elastic
    # fewer and harder images, three and a half hours; results/elastic_stamps.json
    python benchmarks/elastic.py --runs runs/elastic --data stamps --sizes 64,80,96,112 --epochs 40 --batch 32 \
        --seeds 4 --memory "" --result benchmarks/results/elastic_stamps.json
    # with a size below 64 pixels, where the stem keeps stride 1: --sizes 48,64,80,96, two seeds and --runs of its own,
    # in elastic_stamps_48.json

V1 learns a data set at every width and resolution at once, and six of them (the corners and two between) alone, all for
the same number of epochs, with --seeds seeds. Those six are then extracted and trained further for 15 % of the epochs,
as `train --budget` does it. Seconds are those of training, and of measuring all widths and resolutions at its end, of
all networks at once those of the fastest seed; what the other networks would take alone follows from their
multiply-accumulates by the line through the six. What --runs holds already is not trained again; what was stopped goes
on from its last epoch. ``step`` tells the seconds of a step of training for all, and of one of each alone, in turns:
their ratio, which other work on the machine changes little. --alone takes the accuracies of the six from an earlier
result of the same schedule, where only what trains them all has changed; as those seconds are another machine's, the
share of time is then reckoned from the steps alone.

``memory`` is the most that a process took which trained on random images for three epochs, evaluation included: for
all widths and resolutions of --memory, and for the widest at the largest resolution alone.
"""

import argparse
import itertools
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from mobilenets.architectures import cost, network, write_out
from mobilenets.card import environment, now, read_card
from mobilenets.data import ImageData, Split, load
from mobilenets.data.resizing import resize_all
from mobilenets.files import write_json
from mobilenets.models import keras
from mobilenets.models.builder import classifier, logits_model
from mobilenets.selection.extract import extract
from mobilenets.selection.further import TUNED, further
from mobilenets.training import checkpoint
from mobilenets.training.classify import train
from mobilenets.training.elastic import Sandwich, Widest, turns
from mobilenets.training.optimizer import make_optimizer
from mobilenets.training.settings import Settings

RESULTS = Path(__file__).parent / "results"


def chosen(alphas: list[float], sizes: list[int]) -> list[tuple[float, int]]:
    """The networks that are trained alone: the corners, and two between."""
    corners = itertools.product((alphas[0], alphas[-1]), (sizes[0], sizes[-1]))
    return sorted({*corners, (alphas[1], sizes[-2]), (alphas[-2], sizes[1])})


class Bench:
    """Everything that is trained, each in a directory of its own.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.data, self.table = options, load(options.data), network(options.net)
        self.earlier = json.loads(options.alone.read_text()) if options.alone else {}
        if self.earlier and any(self.earlier[key] != value for key, value in self.schedule().items()):
            raise SystemExit(f"{options.alone}: is of another schedule: give a result of {self.schedule()}")

    def place(self, name: str, seed: int) -> Path:
        """The directory of a model."""
        return self.options.runs / f"{self.options.data}_{self.options.net}_{self.options.epochs}_{name}_{seed}"

    def alone(self, alpha: float, size: int, settings: Settings) -> tuple[float, float | None]:
        """Accuracy of one network trained alone, and the seconds that took here, if it was trained here."""
        if self.earlier:
            rows = next(seed["rows"] for seed in self.earlier["seeds"] if seed["seed"] == settings.seed)
            row = next(row for row in rows if (row["width_multiplier"], row["resolution"]) == (alpha, size))
            return row["alone"], None
        card = self.train(f"{alpha:g}_{size}", alpha, size, settings)
        return card["metrics"]["accuracy"], card["training"]["seconds"]

    def schedule(self) -> dict[str, Any]:
        """What a result says of how its networks were trained."""
        options = self.options
        return {"network": options.net, "data": options.data, "epochs": options.epochs, "batch_size": options.batch}

    def settings(self, seed: int) -> Settings:
        """Of every training from random weights."""
        epochs = self.options.epochs
        return Settings(epochs=epochs, batch_size=self.options.batch, warmup_epochs=min(1.0, epochs / 4), seed=seed)

    def train(self, name: str, alpha: Any, size: Any, settings: Settings, **more: Any) -> dict[str, Any]:
        """The card of a model, trained unless it is there."""
        out = self.place(name, settings.seed)
        if (out / "card.json").is_file():
            return read_card(out)
        begun = {"resume": True} if (out / checkpoint.FILE).is_file() else {"overwrite": True}
        return train(self.data, out, self.table, alpha, size, settings, **begun, **more)

    def macs(self, alpha: float, size: int) -> int:
        """Multiply-accumulates of a network."""
        return cost(write_out(self.table, (size, size, 3), len(self.data.classes), alpha)).macs

    def seed(self, seed: int, alphas: list[float], sizes: list[int]) -> dict[str, Any]:
        """Everything with one seed."""
        settings, directory = self.settings(seed), self.place("elastic", seed)
        card = self.train("elastic", alphas, sizes, settings)
        found = {(row["width_multiplier"], row["resolution"]): row["accuracy"] for row in card["elastic"]["members"]}
        rows = []
        for alpha, size in chosen(alphas, sizes):
            alone, alone_seconds = self.alone(alpha, size, settings)
            cut = self.options.runs / "extracted"
            extract(directory, cut, alpha, size, overwrite=True)
            more, teacher = further(settings, self.data, directory, (alpha, size))
            tuned = self.train(f"tuned_{alpha:g}_{size}", alpha, size, more, weights=cut, **teacher)
            rows.append(
                {
                    "width_multiplier": alpha,
                    "resolution": size,
                    "macs": self.macs(alpha, size),
                    "alone": alone,
                    "elastic": found[alpha, size],
                    "tuned": tuned["metrics"]["accuracy"],
                    "tuned_epochs": more.epochs,
                    "alone_seconds": alone_seconds,
                    "tuned_seconds": tuned["training"]["seconds"],
                }
            )
            print(rows[-1], flush=True)
        return {
            "seed": seed,
            "elastic_seconds": card["training"]["seconds"] + card["training"]["calibration_seconds"],
            "members": card["elastic"]["members"],
            "rows": rows,
        }


def _peak(out: Path, alphas: list[float], sizes: list[int], connection: Any) -> None:
    """Trains, and tells how much memory that took at most, in bytes."""
    import resource

    side = max(sizes)
    images = np.random.default_rng(0).integers(0, 256, (320, side, side, 3), np.uint8)
    split = Split(images, np.arange(320) % 4)
    data = ImageData("noise", "noise", tuple("abcd"), split, split.some(32), side, False, "0" * 64)
    train(data, out, network("v1"), alphas, sizes, Settings(epochs=3, batch_size=32), quiet=True)
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def peak(alphas: list[float], sizes: list[int]) -> int:
    """Bytes of a process of its own that trains V1."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as place:
        process = context.Process(target=_peak, args=(Path(place) / "run", alphas, sizes, theirs))
        process.start()
        found = mine.recv()
        process.join()
    return found


def memory(alphas: list[float], sizes: list[int]) -> dict[str, Any]:
    """What training all of them takes, and what the widest alone does."""
    every, alone = peak(alphas, sizes), peak(alphas[-1:], sizes[-1:])
    return {"alphas": alphas, "sizes": sizes, "all": every, "widest": alone, "ratio": round(every / alone, 3)}


def in_turns(bench: Bench, alphas: list[float], sizes: list[int], rounds: int = 24) -> dict[str, Any]:
    """Seconds of a step of training for all of them, and of one step of each alone; taken in turns."""
    settings = Settings(batch_size=bench.options.batch)
    labels = np.eye(len(bench.data.classes), dtype=np.float32)[bench.data.train.labels[: settings.batch_size]]
    images = np.random.default_rng(0).integers(0, 256, (settings.batch_size, sizes[-1], sizes[-1], 3), np.uint8)
    members = list(itertools.product(alphas, sizes))

    def compiled(alpha: float, size: int, passes: int) -> Any:
        model = logits_model(classifier(bench.table, (size, size, 3), labels.shape[1], alpha))
        model = Widest(model) if passes > 1 else model
        optimizer = make_optimizer(settings, model.trainable_variables, 1000, passes=passes)
        model.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
        return model

    networks = {member: compiled(*member, 1) for member in members}
    sandwich = Sandwich(compiled(*members[-1], turns(members)), bench.table, members, seed=0)

    def step_of(member: tuple[float, int] | None, place: int) -> float:
        shown = resize_all(images, member[1]) if member else images
        began = time.perf_counter()
        if member:
            networks[member].train_on_batch(shown, labels)
        else:
            sandwich(shown, labels, None, (0, place))
        return time.perf_counter() - began

    for place in range(2 * len(members)):  # until every width was traced
        step_of(None, place)
    for member in members:
        step_of(member, 0)
    every, alone = [], []
    for place in range(rounds):
        every.append(step_of(None, place))
        alone.append([step_of(member, place) for member in members])
    ratios = np.array(every) / np.sum(alone, axis=1)
    return {
        "rounds": rounds,
        "step_of_all": round(float(np.mean(every)), 4),
        "steps_alone": [round(seconds, 4) for seconds in np.mean(alone, axis=0).tolist()],
        "ratio": round(float(np.mean(ratios)), 3),
        "quartiles": np.quantile(ratios, (0.25, 0.75)).round(3).tolist(),
    }


def _tau(one: np.ndarray, other: np.ndarray) -> float:
    return round(float(kendalltau(one, other).statistic), 3)


def summary(seeds: list[dict[str, Any]], macs: list[int], steps: dict[str, Any]) -> dict[str, Any]:
    """The goals' numbers, of the means over the seeds."""
    rows = [row for seed in seeds for row in seed["rows"]]
    found = {
        key: np.array([[row[key] for row in seed["rows"]] for seed in seeds]) for key in ("alone", "elastic", "tuned")
    }
    mean = {key: values.mean(axis=0) for key, values in found.items()}
    if any(row["alone_seconds"] is None for row in rows):  # by steps: the widest takes longest to train further
        widest = steps["steps_alone"][-1] / sum(steps["steps_alone"])
        times = {"share_of_time": round(steps["ratio"] + TUNED * widest, 3)}
    else:
        slope, start = np.polyfit([row["macs"] for row in rows], [row["alone_seconds"] for row in rows], 1)
        every = float(sum(start + slope * count for count in macs))
        elastic = min(seed["elastic_seconds"] for seed in seeds)  # other work on the machine only adds
        tuned = max(row["tuned_seconds"] for row in rows)
        times = {
            "seconds_all_alone": round(every, 1),
            "seconds_elastic": round(elastic, 1),
            "seconds_tuning_at_most": round(tuned, 1),
            "share_of_time": round((elastic + tuned) / every, 3),
        }
    off = {key: (100 * (mean[key] - mean["alone"])).round(2).tolist() for key in ("elastic", "tuned")}
    error = {key: 100 * (found[key] - found["alone"]).std(ddof=1) / found[key].size ** 0.5 for key in off}
    pairs = itertools.combinations(found["alone"], 2)
    return {
        "elastic_minus_alone_points": off["elastic"],
        "tuned_minus_alone_points": off["tuned"],
        "mean_elastic_minus_alone": round(float(np.mean(off["elastic"])), 2),
        "mean_tuned_minus_alone": round(float(np.mean(off["tuned"])), 2),
        "standard_errors": [round(float(error[key]), 2) for key in off],
        "kendall_tau": _tau(mean["elastic"], mean["alone"]),
        "kendall_tau_alone_between_seeds": [_tau(*pair) for pair in pairs],
        **times,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="where trained models are kept")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--net", default="v1")
    parser.add_argument("--alphas", default="0.125,0.25,0.375,0.5")
    parser.add_argument("--sizes", default="16,20,24,28")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--memory", default="0.25,0.5,0.75,1@64,80,96,128", help="widths and sizes; nothing for none")
    parser.add_argument("--alone", type=Path, help="an earlier result, to take from it what was trained alone")
    parser.add_argument("--result", type=Path, default=RESULTS / "elastic.json")
    options = parser.parse_args()
    alphas = sorted(map(float, options.alphas.split(",")))
    sizes = sorted(map(int, options.sizes.split(",")))
    taken = None
    if options.memory:
        widths, _, sides = options.memory.partition("@")
        taken = memory(sorted(map(float, widths.split(","))), sorted(map(int, sides.split(","))))
        print(taken, flush=True)
    bench, seeds = Bench(options), []
    steps = in_turns(bench, alphas, sizes)
    print(steps, flush=True)
    macs = [bench.macs(alpha, size) for alpha in alphas for size in sizes]
    for seed in range(options.seeds):
        seeds.append(bench.seed(seed, alphas, sizes))
        result = {
            "benchmark": "elastic",
            "measured": now(),
            **bench.schedule(),
            "alone_measured": bench.earlier.get("alone_measured", bench.earlier.get("measured", now())),
            "summary": summary(seeds, macs, steps),
            "memory": taken,
            "step": steps,
            "seeds": seeds,
            "environment": environment(),
        }
        write_json(options.result, result)
        print(result["summary"], flush=True)


if __name__ == "__main__":
    main()
