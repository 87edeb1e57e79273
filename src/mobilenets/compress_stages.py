"""The stages of a compression: channels are removed step by step, and what is left is trained for integers.

Each stage leaves the model that it begins with in ``stages/``, so that an interrupted run goes on where it was.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.architectures import AnyHead, Network, cost, layers_of
from mobilenets.card import HISTORY
from mobilenets.compress_latency import FileClock, share_for
from mobilenets.compression.importance import CRITERIA, importance
from mobilenets.compression.pruning import Pruner
from mobilenets.compression.qat import train_quantized
from mobilenets.compression.quantization import Quantization
from mobilenets.compression.repair import Labelled, repair
from mobilenets.deployment.calibrate import observe
from mobilenets.errors import TrainingStopped, UserError
from mobilenets.files import write_json
from mobilenets.models import keras
from mobilenets.models.saving import load_model, save_model
from mobilenets.models.statistics import recalibrate
from mobilenets.models.tasks import classes_of
from mobilenets.training import logs
from mobilenets.training.checkpoint import State
from mobilenets.training.kinds import Kind
from mobilenets.training.loop import Result
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import Settings

STAGES = "stages"  # directory of what stages begin with


@dataclass(frozen=True)
class Pruning:
    """Which channels to remove.

    Attributes:
        share: of the multiply-accumulates that may be left, 0..1, or None where ``target_ms`` decides.
        target_ms: milliseconds that the file may take for an image, or None.
        target: kind of file that is measured then.
        precision: of that file.
        threads: to measure with; None takes every core.
        floats: operations that stay in float32 in it.
        weight_bits: of its weights, 8 or 4.
        criterion: of `mobilenets.compression.importance.CRITERIA`.
        steps: how often channels are removed, with training after each time.
    """

    share: float | None
    target_ms: float | None = None
    target: str = "litert"
    precision: str = "float32"
    threads: int | None = None
    floats: Sequence[str] = ()
    weight_bits: int = 8
    criterion: str = CRITERIA[0]
    steps: int = 3


@dataclass
class Work:
    """A model on its way through the stages.

    Attributes:
        model: as it is now.
        network: its table.
        width_multiplier: alpha.
        head: of a detector or a segmenter, or None.
        log: an entry for each stage.
    """

    model: keras.Model
    network: Network
    width_multiplier: float
    head: AnyHead | None
    log: list[dict[str, Any]]

    def layers(self) -> list:
        """The model's primitive layers."""
        shape, classes = self.model.input_shape[1:], classes_of(self.model)
        return layers_of(self.network, self.head, shape, classes, self.width_multiplier)


class Stages:
    """Runs what there is to do, one stage after another, each resumable after every epoch.

    Args:
        out: the model directory to write.
        state: where to begin; of `mobilenets.training.classify.prepare`.
        kind: of the model, with the data to train and evaluate on.
        quiet: print no progress.
    """

    def __init__(self, out: Path, state: State, kind: Kind, quiet: bool) -> None:
        self._out, self._state, self._kind, self._data, self._quiet = out, state, kind, kind.data, quiet
        self._number, self._history = 0, []
        self._reached = state.config.get("stage")
        if self._reached is None:  # a fresh run; an older one may have been killed before its first epoch
            self.done()

    def prune(self, work: Work, pruning: Pruning, settings: Settings, images: list[np.ndarray]) -> None:
        """Removes channels in steps and trains what is left, the same number of epochs after each.

        Args:
            work: is changed.
            pruning: what to remove.
            settings: how to train; ``epochs`` in all.
            images: uint8, to choose the ranges of files with that are measured.
        """
        whole = cost(work.layers()).macs
        # The last steps get what cannot be divided.
        epochs = [(settings.epochs * (step + 1)) // pruning.steps for step in range(pruning.steps)]
        epochs = np.diff([0, *epochs]).tolist()
        original, share, whole_ms = work.model, pruning.share, None
        for step in range(pruning.steps):

            def cut(step: int = step, whole_ms: float | None = whole_ms) -> dict[str, Any]:
                nonlocal share
                pruner = self._pruner(work, pruning.criterion)
                last = step == pruning.steps - 1
                told = {}
                if pruning.target_ms is not None and (share is None or last):
                    with FileClock(
                        original,
                        images[:8],
                        pruning.target,
                        pruning.precision,
                        pruning.threads,
                        pruning.floats,
                        pruning.weight_bits,
                        whole_ms,
                    ) as clock:
                        told["whole_ms"] = clock.whole_ms
                        self.say(f"the whole network: {clock.whole_ms:.3g} ms; candidates in turns with it:")

                        def latency_of(share: float) -> float:
                            return clock(pruner.at(share * whole, settled=False)[0])

                        share = share_for(pruning.target_ms, latency_of, self.say, pruner.macs / whole)
                    if share == 1:
                        raise UserError(
                            f"--target-ms {pruning.target_ms:g}: the {pruning.precision} file is as fast as that "
                            f"here already ({told['whole_ms']:.3g} ms); there is nothing to prune"
                        )
                left = share if last else share ** ((step + 1) / pruning.steps)
                work.model, work.network = pruner.at(left * whole)
                return {"stage": "prune", "step": step + 1, "share": round(share, 4)} | told

            def train(state: State, entry: dict[str, Any], epochs: int = epochs[step]) -> Result:
                wanted = replace(settings, epochs=epochs, warmup_epochs=min(settings.warmup_epochs, epochs))
                return self._kind.fit(
                    work.model, self._data, wanted, self._out, state, self._reporter, from_weights=True
                )

            entry = self._stage(work, cut, train)
            share, whole_ms = entry["share"], entry.get("whole_ms", whole_ms)

    def quantize(
        self, work: Work, settings: Settings, images: list[np.ndarray], labelled: Labelled, **options: Any
    ) -> tuple[Quantization, keras.Model]:
        """Trains for integers, from the ranges that are best before.

        Three epochs brought the LiteRT file of V3-Large with SSDLite (`stamps`, 320 pixels), whose last blocks have
        values of thirty times their root mean square, to an AP of 39.5 from the extremes and of 41.1 from these.

        Args:
            work: is changed.
            settings: how.
            images: uint8, to calibrate on.
            labelled: images to choose the ranges by.
            **options: of `mobilenets.compression.qat.train_quantized`.

        Returns:
            What files need to know, and the model as it is computed in integers.
        """
        found: list[Any] = []

        def begin() -> dict[str, Any]:
            begun, trials = repair(work.model, images, labelled, observe, mend=False, say=self.say, **options)
            return {"stage": "qat", "trials": trials, "ranges": begun.ranges}

        def train(state: State, entry: dict[str, Any]) -> Result:
            ranges = {name: (low, high) for name, (low, high) in entry["ranges"].items()}
            result, *rest = train_quantized(
                work.model,
                self._data,
                settings,
                self._out,
                state,
                ranges,
                fit=self._kind.fit,
                reporter=self._reporter,
                **options,
            )
            found.extend(rest)
            return result

        del self._stage(work, begin, train)["ranges"]
        quantization, network = found
        return quantization, network

    def write_history(self) -> None:
        """Writes the epochs of all stages, counted on, as the model's history."""
        if self._history:
            rows = [row | {"epoch": number} for number, row in enumerate(self._history, start=1)]
            logs.write_history(self._out / HISTORY, rows)

    def done(self) -> None:
        """Removes what was kept for a run that is interrupted; others may have files of their own there."""
        with suppress(OSError):
            for path in list((self._out / STAGES).iterdir()):
                if path.stem.isdecimal() and path.suffix in (".keras", ".json"):
                    path.unlink()
            (self._out / STAGES).rmdir()

    def _kept(self, number: int) -> tuple[Path, Path]:
        """The files of a stage: the model that it begins with, and what is known of it."""
        start = self._out / STAGES / f"{number}.keras"
        return start, start.with_suffix(".json")

    def _stage(
        self,
        work: Work,
        begin: Callable[[], dict[str, Any]],
        train: Callable[[State, dict[str, Any]], Result],
    ) -> dict[str, Any]:
        """Runs one stage, or skips it, where it had been finished.

        ``begin`` changes the model and gives an entry, which is kept for a run that goes on; ``train`` reads it.
        """
        number, self._number = self._number, self._number + 1
        start, about = self._kept(number)
        reached = -1 if self._reached is None else self._reached
        history: list[dict[str, float]] = []
        if number <= reached:
            if not about.is_file():
                raise UserError(f"{about}: is missing, so the run cannot go on; start again with --overwrite")
            entry = json.loads(about.read_text(encoding="utf-8"))
            history = entry.pop("history", [])
            work.network = replace(work.network, channels=tuple(sorted(entry.pop("channels").items())))
            if number == reached:
                work.model = load_model(start)
        else:
            entry = begin()
            start.parent.mkdir(parents=True, exist_ok=True)
            save_model(work.model, start)
            entry |= {key: value for key, value in asdict(cost(work.layers())).items() if key in ("macs", "params")}
            write_json(about, entry | {"channels": dict(work.network.channels)})
        if number >= reached:
            state = self._state if number == reached else State(self._state.config | {"stage": number})
            state.config["stage"] = number
            self.say(f"{_title(entry)}: {entry['macs'] / 1e6:,.3g} M multiply-accumulates")
            result = train(state, entry)
            if result.failed:
                advice = (
                    "try a lower --lr" if entry["stage"] == "qat" else "remove fewer channels, or in more --prune-steps"
                )
                raise TrainingStopped(f"training stopped: {result.stopped}; {advice}")
            entry |= {
                "epochs": result.state.epoch,
                "seconds": round(result.state.seconds, 1),
                self._kind.score: round(result.state.history[-1][f"val_{self._kind.score}"], 4),
            }
            history = result.state.history
            write_json(about, entry | {"channels": dict(work.network.channels), "history": history})
        work.log.append(entry)
        self._history += history
        return entry

    def _pruner(self, work: Work, criterion: str) -> Pruner:
        size = work.model.input_shape[1]
        return Pruner(
            work.model,
            work.network,
            work.width_multiplier,
            lambda model, channels: importance(model, channels, criterion, self._kind.looked_at(size)),
            lambda model: recalibrate(model, (images for images, _ in self._kind.looked_at(size))),
            work.head,
        )

    def _reporter(self, epochs: int, steps: int) -> Reporter:
        return Reporter(epochs, steps, self._quiet)

    def say(self, text: str) -> None:
        """Prints one line, unless it shall be quiet."""
        self._reporter(0, 0).say(text)


def _title(entry: dict[str, Any]) -> str:
    return "training for int8" if entry["stage"] == "qat" else f"pruned, step {entry['step']}"
