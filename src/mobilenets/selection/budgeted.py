"""From images to a file that fits: train every width and resolution, measure, choose, tune, and write."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.architectures import AnyHead, Network, said_of
from mobilenets.compress import QAT_RATE, Options, compress
from mobilenets.data import ImageData
from mobilenets.data.boxes import BoxData
from mobilenets.data.masks import MaskData
from mobilenets.deployment.export import export
from mobilenets.deployment.targets import Variant, target_of
from mobilenets.errors import TrainingStopped, UserError
from mobilenets.evaluation.evaluate import publish
from mobilenets.files import write_json
from mobilenets.selection.budget import SLACK, Budget, Choice, named, pick
from mobilenets.selection.choose import figures, settle, taken, tell
from mobilenets.selection.extract import extract
from mobilenets.selection.further import further, shorter
from mobilenets.selection.grid import Plan, again, grid
from mobilenets.selection.grid_report import render
from mobilenets.selection.table import Row, columns, key_of
from mobilenets.training import checkpoint
from mobilenets.training.classify import make_room, require_elastic, train
from mobilenets.training.dense import train_dense
from mobilenets.training.kinds import dense
from mobilenets.training.settings import DETECTOR_IMAGES, Settings

LOST = 0.002  # of the metric, between float32 and int8, from which on int8 is trained for
INTEGER = 0.1  # of the epochs, in which that is done
ALPHAS = (0.25, 0.5, 0.75, 1.0)
SEVENTHS = (4, 5, 6, 7)  # of the largest side: 128, 160, 192 and 224, as in the papers
CHOICE = "choice.json"
Say = Callable[[str], None]
Report = Callable[[str, int, int], None]


def sides(largest: int) -> list[int]:
    """The resolutions that are trained where nobody names any."""
    return sorted({max(8, round(largest * part / SEVENTHS[-1])) for part in SEVENTHS})


def train_to_budget(
    data: ImageData | BoxData | MaskData,
    out: Path | str,
    network: Network,
    width_multipliers: Sequence[float],
    sizes: Sequence[int],
    budget: Budget,
    settings: Settings | None = None,
    *,
    head: AnyHead | None = None,
    weights: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
    data_options: dict[str, Any] | None = None,
    say: Say | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Trains, measures and chooses, and writes the model directory of what fits, with its exported file.

    One training for every width and resolution; each measured as the file that would ship; the best that fits,
    trained alone for 15 % of the epochs more, a classifier to say what the widest one says; in int8, if that was
    chosen, with quantization-aware training where calibration alone loses more than 0.2 points. Of these stages the
    one whose file is best goes out. All of them stay in ``out/stages``, so that another budget can be tried:
    ``mobilenets choose out/stages/elastic``.

    Args:
        data: see `mobilenets.training.classify.train`, or with a head `mobilenets.training.dense.train_dense`;
            likewise the arguments not named here.
        out: the model directory to write.
        network: the table.
        width_multipliers: two or more, or several ``sizes``.
        sizes: pixels.
        budget: what the file may take; without a runtime, LiteRT's.
        settings: of the training of all; what follows is shorter and otherwise alike.
        head: of a detector or a segmenter, as there; None trains a classifier.
        say: called with a line about every stage that begins.
        report: called with what is measured, how much is done, and how much there is.

    Returns:
        The card, with ``chosen``.

    Raises:
        UserError: as `mobilenets.training.classify.train`; or nothing fits the budget.
    """
    out, settings = Path(out), settings or (Settings(batch_size=DETECTOR_IMAGES) if head else Settings())
    say = say or (lambda _: None)
    require_elastic(network, settings, sizes, head)
    budget = budget.about(cards.task_with(head))
    plan = _plan(budget, head)
    cards.require_apart(out, data=data.source, weights=weights)
    stages = _Stages(
        out,
        {
            "network": network.name,
            **said_of(head),
            "alpha": sorted(width_multipliers),
            "size": sorted(sizes),
            "weights": str(weights) if weights else None,
            "settings": settings.asdict(),
            "fingerprint": data.fingerprint,
            "budget": asdict(budget),
        },
        resume,
        overwrite,
    )
    common = {"quiet": quiet, "command": command, "data_options": data_options}
    members = len(set(width_multipliers)) * len(set(sizes))
    say(f"1/4  training {network.title} at {members} widths and resolutions")
    elastic = stages.path("elastic")
    if not stages.done("elastic"):
        grid_of = (list(width_multipliers), list(sizes))
        options = {"weights": weights, "starting": stages.start} | stages.state("elastic") | common
        _training(head)(data, elastic, network, *grid_of, settings, **options)
    say("2/4  measuring every one of them as a file")
    known = grid(elastic, plan, report=report)
    render(elastic / cards.GRID)
    notes: list[str] = []
    choice = stages.choice(known, budget, notes) or _settle(elastic, known, budget, notes, report)
    row = choice.winner
    stages.keep(row, notes)
    say(f"3/4  training {named(row)} alone")
    found = [_as_extracted(stages, elastic, row, command)]
    try:
        found.append(_tuned(stages, data, network, head, row, settings, bool(weights), common))
        if Variant(row["target"], row["precision"]).integer and found[-1].lost(budget) > LOST:
            found.append(_integers(stages, row, settings, quiet, command))
    except TrainingStopped as error:  # what there is already fits
        notes.append(f"training the chosen network further failed: {error}")
    best = max(found, key=lambda stage: stage.value(budget))
    say(f"4/4  writing the best of {len(found)} files")
    file = _assemble(best.directory, out)
    measured = again(elastic, known, row, file)
    if not budget.keeps(measured, SLACK):
        notes.append(f"measured again at last, it takes {taken(measured, budget)}")
    chosen = tell(replace(choice, winner=measured, shares=budget.shares(measured)), known, notes)
    card = cards.read_card(out)
    card |= {"command": command, "created": cards.now()}
    card["chosen"] = chosen | {
        "from": str(elastic),
        "device": None,
        "stages": [{"stage": stage.name} | figures(stage.row) for stage in found],
        "stage": best.name,
    }
    publish(out, card)
    return card


def _training(head: AnyHead | None) -> Callable[..., Any]:
    """`mobilenets.training.classify.train`, or the same of detectors and segmenters."""

    def run(data: BoxData | MaskData, out: Path, network: Network, *others: Any, **options: Any) -> None:
        train_dense(data, out, network, head, *others, **options)

    return run if head else train


def _plan(budget: Budget, head: AnyHead | None) -> Plan:
    """What to measure: the files of one runtime.

    Raises:
        UserError: no file can be written for it here.
    """
    plan = Plan(
        targets=[target_of(budget.runtime or "litert")],
        precisions=[budget.precision] if budget.precision else ["float32", "int8"],
    )
    plan.files(cards.task_with(head) == cards.DETECT)  # what cannot be written fails now, not after the training
    return plan


def _settle(elastic: Path, known: dict[str, Any], budget: Budget, notes: list[str], report: Report | None) -> Choice:
    try:
        return settle(elastic, known, budget, notes, report)
    except UserError as error:
        raise UserError(
            f"{error}. All networks are trained and measured; take another budget with `mobilenets choose {elastic}`"
        ) from None


class _Stages:
    """The directories behind a run, and which of them are finished.

    Args:
        out: the model directory that the run ends in.
        config: what the run must go on with once it was begun.
        resume: go on with the run that ``out`` holds.
        overwrite: replace the model or the run that ``out`` holds.

    Raises:
        UserError: there is a model or another run, or nothing to resume.
    """

    def __init__(self, out: Path, config: dict[str, Any], resume: bool, overwrite: bool) -> None:
        self._out, self._config, self._resume, self._overwrite = out, config, resume, overwrite
        self._directory = out / cards.STAGES
        if resume:
            self._require_same()
        elif not overwrite:
            cards.require_new(out)
            if (out / checkpoint.FILE).is_file():
                raise UserError(
                    f"{out}: holds an unfinished run without a budget; go on with --resume and no --budget, or start "
                    "again with --overwrite"
                )

    def _require_same(self) -> None:
        path = self._out / cards.RUN
        if not path.is_file():
            raise UserError(f"{self._out}: nothing to resume, no run with a budget was begun there")
        try:
            stored = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: damaged ({error}); start again with --overwrite") from None
        checkpoint.require_same(stored, self._config, self._out)

    def start(self) -> None:
        """Makes room for the run and writes down how it began, when nothing speaks against its training any more."""
        if self._overwrite:
            make_room(self._out)
        write_json(self._out / cards.RUN, self._config)

    def path(self, name: str) -> Path:
        """Where a stage stands."""
        return self._directory / name

    def done(self, name: str) -> bool:
        """Whether a stage was finished before."""
        return self._resume and (self.path(name) / cards.CARD).is_file() and not self._begun(name)

    def state(self, name: str) -> dict[str, bool]:
        """How a stage that is not finished goes on: from its checkpoint, or from the beginning."""
        resume = self._resume and self._begun(name)
        return {"resume": resume, "overwrite": not resume}

    def keep(self, row: Row, notes: list[str]) -> None:
        """Remembers what was chosen, and why: measured again, it might be another."""
        write_json(self._directory / CHOICE, {"file": key_of(row), "notes": notes})

    def choice(self, known: dict[str, Any], budget: Budget, notes: list[str]) -> Choice | None:
        """What was chosen before the run was stopped, whose notes are added; None where nothing was."""
        path = self._directory / CHOICE
        if not self._resume or not path.is_file():
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            wanted, told = tuple(stored["file"]), [str(note) for note in stored["notes"]]
            rows = list(known["rows"])
            choice = pick(rows, budget)
            while key_of(choice.winner) != wanted:  # measured again, it broke the budget
                rows.remove(choice.winner)
                choice = pick(rows, budget)
        except (OSError, ValueError, TypeError, KeyError):  # UserError among them: nothing is left to pick
            return None
        notes += told
        return choice

    def _begun(self, name: str) -> bool:
        return (self.path(name) / checkpoint.FILE).is_file()


class _Stage:
    """A candidate: a model directory, and what its file does."""

    def __init__(self, name: str, directory: Path, row: Row) -> None:
        self.name, self.directory, self.row = name, directory, row

    def value(self, budget: Budget) -> float:
        """What the file shall be best in."""
        return budget.value(self.row)

    def lost(self, budget: Budget) -> float:
        """How much less of it the file has than the Keras model."""
        return budget.value(columns(cards.read_card(self.directory)["metrics"])) - self.value(budget)


def _exported(name: str, directory: Path, row: Row) -> _Stage:
    """Writes a stage's file, unless it is there."""
    known = cards.read_card(directory).get("artifacts", [])
    entries = [entry for entry in known if (entry.get("target"), entry.get("precision")) == _kind(row)]
    entry = entries[0] if entries else export(directory, [row["target"]], [row["precision"]], max_drop=100)[0]
    return _Stage(name, directory, row | columns(entry["metrics"]) | {"file_bytes": entry["bytes"]})


def _kind(row: Row) -> tuple[str, str]:
    return (row["target"], row["precision"])


def _as_extracted(stages: _Stages, elastic: Path, row: Row, command: str) -> _Stage:
    path = stages.path("extracted")
    extract(elastic, path, row["width_multiplier"], row["resolution"], overwrite=True, command=command)
    return _exported("extracted", path, row)


def _tuned(
    stages: _Stages,
    data: ImageData | BoxData | MaskData,
    network: Network,
    head: AnyHead | None,
    row: Row,
    settings: Settings,
    from_weights: bool,
    common: dict[str, Any],
) -> _Stage:
    path = stages.path("tuned")
    if not stages.done("tuned"):
        member = (row["width_multiplier"], row["resolution"])
        tuned, teacher = further(settings, data, stages.path("elastic"), member, from_weights)
        if head and tuned.learning_rate is None and tuned.optimizer == "sgd":
            tuned = replace(tuned, learning_rate=dense(data, head).rate(tuned) / 10)
        options = {"weights": stages.path("extracted")} | teacher | stages.state("tuned") | common
        _training(head)(data, path, network, *member, tuned, **options)
    return _exported("tuned", path, row)


def _integers(stages: _Stages, row: Row, settings: Settings, quiet: bool, command: str) -> _Stage:
    path, epochs = stages.path("integers"), max(1, round(INTEGER * settings.epochs))
    if not stages.done("integers"):
        options, rate = Options(int8="qat", targets=[row["target"]], max_drop=100), settings.learning_rate
        settings = replace(shorter(settings, epochs), learning_rate=rate and rate * QAT_RATE)
        compress(
            stages.path("tuned"), path, options, settings, quiet=quiet, command=command, **stages.state("integers")
        )
    return _exported("integers", path, row)


def _assemble(stage: Path, out: Path) -> Path:
    """Copies a stage's model directory to where the user wants it; returns the path of its file.

    Nothing else that may stand there is removed.
    """
    for name in (cards.MODEL, cards.HISTORY, "pictures", cards.EXPORT):
        source, target = stage / name, out / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy2(source, target)
    card = cards.read_card(stage)
    cards.write_card(out, card)
    return out / card["artifacts"][0]["file"]
