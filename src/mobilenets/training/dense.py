"""The whole of ``mobilenets train --task detect`` or ``segment``: data and settings in, a model directory out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.architectures import Head, Network, SegmentationHead, said_of
from mobilenets.data.boxes import BoxData
from mobilenets.data.masks import MaskData
from mobilenets.errors import UserError
from mobilenets.evaluation.evaluate import publish
from mobilenets.models import keras
from mobilenets.models.elastic import Elastic, save_statistics
from mobilenets.models.saving import save_model
from mobilenets.models.tasks import built
from mobilenets.models.weights import as_trained, start_from
from mobilenets.training.calibrated import calibrate
from mobilenets.training.classify import describe, finish, listed, make_room, prepare, require_elastic, require_epoch
from mobilenets.training.kinds import dense
from mobilenets.training.loop import resolved
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import DETECTOR_IMAGES, Settings

PICTURE = 160  # pixels of the side of a training image in the report, at most
CLIP = 10.0  # norm of a step's gradients, where nobody names one
TOLD = {"ap": ("ap50", "AP50"), "miou": ("miou", "mIoU")}  # how good a model is said to be, by what it is compared by


def train_dense(
    data: BoxData | MaskData,
    out: Path | str,
    network: Network,
    head: Head | SegmentationHead,
    width_multiplier: float | Sequence[float] = 1.0,
    size: int | Sequence[int] | None = None,
    settings: Settings | None = None,
    *,
    weights: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    quiet: bool = False,
    command: str = "",
    data_options: dict[str, Any] | None = None,
    starting: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Trains a detector or a segmenter, whichever the data is for, and writes its model directory.

    Given several widths or resolutions, it trains one set of weights for all of them; see
    `mobilenets.training.classify.train`.

    Args:
        data: of `mobilenets.data.box_folder.load_boxes` or `mobilenets.data.mask_folder.load_masks`.
        out: the directory to write; it must not hold a model yet, unless ``overwrite``.
        network: of `mobilenets.architectures`.
        head: of `mobilenets.architectures.HEADS`, or, with masks, of `mobilenets.architectures.segmentation_head`.
        width_multiplier: alpha > 0, or several.
        size: pixels of the side of the square that images are stretched to, or several; None takes those of the data
            set, or 320; of a segmenter 256.
        settings: how to train; None takes the defaults, and 8 images a step. Where it names none, SGD's learning rate
            is 0.05 for 8 images, or 0.1 of a segmenter, in proportion for others; gradients are clipped to a norm of
            10.
        weights: a ``.keras`` file or model directory to start from, of a classifier or such a model, or ``imagenet``.
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
    settings, out = settings or Settings(batch_size=DETECTOR_IMAGES), Path(out)
    kind, task = dense(data, head), cards.task_with(head)
    for name, option in kind.refused.items():
        if getattr(settings, name) != getattr(Settings(), name):
            raise UserError(f"{option} is for other models; leave it out with --task {task}")
    if settings.freeze and weights is None:
        raise UserError("--freeze trains the head alone, so it needs --weights to start from")
    kind.require()
    usual = cards.usual_size(network, head)
    if task == cards.DETECT:
        usual = data.native_size or usual
    alphas, sizes = listed(width_multiplier), listed(size or usual)
    width_multiplier, size = alphas[-1], sizes[-1]
    members = [(alpha, pixels) for alpha in alphas for pixels in sizes]
    several = len(members) > 1
    settings = replace(settings, batch_size=min(settings.batch_size, len(data.train)))
    settings = replace(settings, precision=resolved(settings.precision))
    if settings.learning_rate is None and settings.optimizer == "sgd":
        settings = replace(settings, learning_rate=kind.rate(settings))
    if settings.clip_norm is None:
        settings = replace(settings, clip_norm=CLIP)
    config = {
        "task": task,
        "network": network.name,
        **said_of(head),
        "alpha": alphas if several else width_multiplier,
        "size": sizes if several else size,
        "weights": str(weights) if weights else None,
        "source": data.source,
        "data": data_options or {},
        "settings": settings.asdict(),
        "fingerprint": data.fingerprint,
    }
    keras.utils.set_random_seed(settings.seed)
    network = as_trained(network, weights, width_multiplier, head) if weights else network
    if several:
        require_elastic(network, settings, sizes, head)
    model = built(network, head, (size, size, 3), len(data.classes), width_multiplier)
    state = prepare(out, config, resume, overwrite)
    if weights and not state.epoch:
        start_from(model, weights, data.classes, network, width_multiplier)
    if starting:
        starting()
    if overwrite and not resume:
        make_room(out)

    def reporter(epochs: int, steps: int) -> Reporter:
        return Reporter(epochs, steps, quiet)

    logs = out / "tensorboard" if tensorboard else None
    elastic = {"elastic": (network, head, members)} if several else {}
    result = kind.fit(model, data, settings, out, state, reporter, logs, bool(weights), **elastic)
    require_epoch(result, settings, weights)
    card = cards.begin(network, width_multiplier, size, data.classes, command, head=head)
    card |= describe(data, settings, weights, result, data_options)
    for name in kind.refused:
        del card["training"][name]
    if several:
        made = Elastic(model, network, width_multiplier, {}, head)
        began = time.perf_counter()
        with reporter(0, 0) as report:
            card["elastic"] = {"members": calibrate(made, members, kind, settings, report.count)}
        card["training"]["calibration_seconds"] = round(time.perf_counter() - began, 1)
        save_statistics(out / cards.ELASTIC, made.statistics)
    save_model(model, out / cards.MODEL)
    card["metrics"] = kind.evaluate(model, out, size)
    kind.draw(out / "pictures" / "augmented.png", settings, min(size, PICTURE))
    publish(out, card)
    figure, title = TOLD[kind.score]
    finish(out, result, f"{title} {card['metrics'][figure]:.1%}", settings, weights)
    return card
