"""The whole of ``mobilenets train``: data and settings in, a model directory out."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.architectures import SMALL_IMAGE, AnyHead, Network
from mobilenets.data import ImageData
from mobilenets.data.boxes import BoxData
from mobilenets.data.masks import MaskData
from mobilenets.errors import TrainingStopped, UserError
from mobilenets.evaluation.evaluate import evaluate_model, publish
from mobilenets.evaluation.inference import predictor
from mobilenets.models import keras
from mobilenets.models.builder import classifier
from mobilenets.models.elastic import Elastic, save_statistics
from mobilenets.models.saving import save_model
from mobilenets.models.weights import as_trained, start_from
from mobilenets.training import checkpoint
from mobilenets.training.calibrated import calibrate
from mobilenets.training.distill import load_teacher, require_teacher
from mobilenets.training.features import fit_head
from mobilenets.training.fit import class_weights, fit
from mobilenets.training.kinds import Classifiers
from mobilenets.training.loop import Result, resolved
from mobilenets.training.optimizer import DECAYS, peak_rate
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import Settings


def train(
    data: ImageData,
    out: Path | str,
    network: Network,
    width_multiplier: float | Sequence[float] = 1.0,
    size: int | Sequence[int] | None = None,
    settings: Settings | None = None,
    *,
    weights: Path | str | None = None,
    teacher: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    quiet: bool = False,
    command: str = "",
    data_options: dict[str, Any] | None = None,
    starting: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Trains a classifier and writes its model directory.

    Given several widths or resolutions, it trains one set of weights for all of them; the model is then the widest at
    the largest resolution, and `mobilenets.models.elastic` gets the others out of it.

    Args:
        data: of `mobilenets.data.load`.
        out: the directory to write; it must not hold a model yet, unless ``overwrite``.
        network: of `mobilenets.architectures`.
        width_multiplier: alpha > 0, or several.
        size: pixels of the side of the square images, or several; None takes those of the data set, or of the paper.
        settings: how to train.
        weights: a ``.keras`` file or model directory to start from, or ``imagenet``, what keras.applications
            publishes.
        teacher: a model directory to learn from besides the labels.
        resume: go on with the run that ``out`` holds the checkpoint of.
        overwrite: remove what ``out`` holds of an earlier model.
        tensorboard: write logs to ``out/tensorboard``.
        quiet: print nothing.
        command: as the user typed it, for the card.
        data_options: ``seed`` and ``val_fraction`` that the data was loaded with.
        starting: called when everything has been checked, before anything is written or removed.

    Returns:
        The card.

    Raises:
        UserError: an argument is out of range, ``out`` cannot be used, or the loss stopped being a number; in the
            last case the model of the last good epoch has been written.
    """
    settings = settings or Settings()
    if not len(data.train):
        raise UserError(f"{data.source}: no image is left to train on; take a --val-fraction below 1")
    out = Path(out)
    alphas, sizes = listed(width_multiplier), listed(size or data.native_size or network.resolution)
    width_multiplier, size = alphas[-1], sizes[-1]
    members = [(alpha, pixels) for alpha in alphas for pixels in sizes]
    several = len(members) > 1
    if settings.mosaic:
        raise UserError("--mosaic is for detectors; leave it out, or give --task detect")
    if settings.dice:
        raise UserError("--dice is for segmenters; leave it out, or give --task segment")
    if settings.freeze and weights is None:
        raise UserError("--freeze trains the head alone, so it needs --weights to start from")
    settings_used = settings.asdict() | {
        "batch_size": min(settings.batch_size, len(data.train)),
        "clip_norm": settings.clip_norm or 0.0,
        # Features that are cached know no other precision.
        "precision": settings.precision if settings.cache_features else resolved(settings.precision),
    }
    settings = Settings(**settings_used)
    config = {
        "network": network.name,
        "alpha": alphas if several else width_multiplier,
        "size": sizes if several else size,
        "weights": str(weights) if weights else None,
        "teacher": str(teacher) if teacher else None,
        "source": data.source,
        "data": data_options or {},
        "settings": settings.asdict(),
        "fingerprint": data.fingerprint,
    }
    keras.utils.set_random_seed(settings.seed)
    network = as_trained(network, weights, width_multiplier) if weights else network
    if several:
        require_elastic(network, settings, sizes)
    model = classifier(network, (size, size, 3), len(data.classes), width_multiplier)
    if settings.cache_features and tensorboard:
        raise UserError("--cache-features writes no logs for TensorBoard; its epochs are in history.csv")
    if settings.cache_features and teacher:
        raise UserError("--cache-features shows images to no teacher; leave one of them out")
    require_teacher(settings, teacher)
    tutor = load_teacher(teacher, data.classes) if teacher else None
    state = prepare(out, config, resume, overwrite)
    if weights and not state.epoch:
        start_from(model, weights, data.classes, network, width_multiplier)
    if starting:
        starting()
    if overwrite and not resume:
        make_room(out)

    def reporter(epochs: int, steps: int) -> Reporter:
        return Reporter(epochs, steps, quiet)

    if settings.cache_features:
        result = fit_head(model, data, settings, out, state, reporter)
    else:
        logs = out / "tensorboard" if tensorboard else None
        elastic = (network, members) if several else None
        result = fit(model, data, settings, out, state, reporter, logs, bool(weights), tutor, elastic)
    require_epoch(result, settings, weights)
    card = cards.begin(network, width_multiplier, size, data.classes, command)
    card |= describe(data, settings, weights, result, data_options)
    card["training"] |= {
        "class_weights": class_weights(data, settings) is not None,
        "teacher": str(teacher) if teacher else None,
    }
    if several:
        made = Elastic(model, network, width_multiplier, {})
        began = time.perf_counter()
        with reporter(0, 0) as report:
            card["elastic"] = {"members": calibrate(made, members, Classifiers(data), settings, report.count)}
        card["training"]["calibration_seconds"] = round(time.perf_counter() - began, 1)
        save_statistics(out / cards.ELASTIC, made.statistics)
    save_model(model, out / cards.MODEL)
    card["metrics"] = evaluate_model(predictor(model), data, out, size, settings.batch_size)
    publish(out, card)
    finish(out, result, f"accuracy {card['metrics']['accuracy']:.1%}", settings, weights)
    return card


def listed(values: Any) -> list:
    """One number or several, ascending, each once."""
    return sorted(set(values)) if isinstance(values, Sequence) else [values]


def require_elastic(network: Network, settings: Settings, sizes: Sequence[int], head: AnyHead | None = None) -> None:
    """Checks that a network can be trained for several widths or resolutions (pixels), as the settings ask.

    Raises:
        UserError: says why not.
    """
    if not network.pool and head is None:
        raise UserError(f"{network.title}: its dense layers fit one resolution; give one --alpha and one --size")
    # Below it strides come later, so that a head reads other blocks, of other channels.
    if head is not None and min(sizes) < SMALL_IMAGE <= max(sizes):
        raise UserError(
            f"--size: heads read other layers of images below {SMALL_IMAGE} pixels than of larger ones; give sizes of "
            "one kind"
        )
    if network.channels:
        raise UserError("--weights: of a pruned model no narrower network can be made; give one --alpha and one --size")
    for option, given in (("--freeze", settings.freeze), ("--ema", settings.ema), ("--patience", settings.patience)):
        if given:
            raise UserError(f"{option} is for one width and resolution; leave it out, or give one --alpha and --size")


def require_epoch(result: Result, settings: Settings, weights: Path | str | None) -> None:
    """Checks that a run has learned something.

    Raises:
        UserError: the loss stopped being a number before.
    """
    if result.failed and not result.state.epoch:
        raise TrainingStopped(
            f"training stopped: {result.stopped}; nothing was learned before. {_advice(settings, weights)}"
        )


def finish(out: Path, result: Result, score: str, settings: Settings, weights: Path | str | None) -> None:
    """Ends a run whose model has been written; one that has not failed needs its checkpoint no more.

    Raises:
        UserError: the loss stopped being a number.
    """
    if result.failed:
        raise TrainingStopped(
            f"training stopped: {result.stopped}; {out} holds the model of epoch {result.state.epoch} ({score}). "
            f"{_advice(settings, weights)}"
        )
    checkpoint.remove(out)


def _advice(settings: Settings, weights: Path | str | None) -> str:
    return f"Try a lower --lr (it was {peak_rate(settings, bool(weights)):g}) or a longer --warmup"


def prepare(out: Path, config: dict[str, Any], resume: bool, overwrite: bool) -> checkpoint.State:
    """The state to begin with, after making sure that nothing is overwritten unasked.

    Nothing is removed yet; see `make_room`.

    Raises:
        UserError: ``out`` holds a model or another run, what is read, or nothing to resume.
    """
    finished = (out / cards.CARD).exists()
    stored = None if overwrite and not resume else checkpoint.load(out)
    if resume:
        if stored is None:
            why = "has finished; train it further with --weights" if finished else "has no checkpoint"
            raise UserError(f"{out}: nothing to resume, this run {why}")
        checkpoint.require_same(stored.config, config, out)
        return stored
    if not overwrite and stored is not None:
        raise UserError(f"{out}: holds an unfinished run; go on with --resume, or start again with --overwrite")
    cards.require_apart(out, data=config.get("source"))
    if overwrite:
        cards.require_apart(out, weights=config.get("weights"), teacher=config.get("teacher"))
    else:
        cards.require_new(out)
    return checkpoint.State(config)


def make_room(out: Path) -> None:
    """Removes the model, and the run that was not finished, which are to be replaced.

    Raises:
        UserError: the directory cannot be written, or is a file.
    """
    cards.clear(out)
    checkpoint.remove(out)


def describe(
    data: ImageData | BoxData | MaskData,
    settings: Settings,
    weights: Path | str | None,
    result: Result,
    data_options: dict[str, Any] | None,
) -> dict[str, Any]:
    """The part of the card that says how a model was trained, and on what."""
    state = result.state
    used = settings.asdict() | {
        "learning_rate": peak_rate(settings, bool(weights)),
        "weight_decay": DECAYS[settings.optimizer] if settings.weight_decay is None else settings.weight_decay,
        "flip": data.flip if settings.flip is None else settings.flip,
    }
    seen = state.epoch * len(data.train)
    return {
        "data": cards.data_entry(data, data_options or {}),
        "training": {
            **used,
            "epochs_run": state.epoch,
            "stopped": result.stopped,
            "weights": str(weights) if weights else None,
            "seconds": round(state.seconds, 1),
            "images_per_second": round(seen / state.seconds, 1) if state.seconds else None,
        },
    }
