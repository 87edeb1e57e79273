"""Training a segmenter: what `mobilenets.training.loop.learn` has to know of it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mobilenets.architectures import Network, SegmentationHead
from mobilenets.data.mask_augment import nearest
from mobilenets.data.mask_loader import MaskEvaluationBatches
from mobilenets.data.masks import MaskData
from mobilenets.evaluation.inference import predictor
from mobilenets.evaluation.segmenter import BATCH, found_in, tally
from mobilenets.models import keras
from mobilenets.models.elastic import Member
from mobilenets.models.segmenter import scores_model
from mobilenets.models.tasks import in_head
from mobilenets.training.checkpoint import State
from mobilenets.training.elastic import Sandwich, turns
from mobilenets.training.fit_boxes import UNUSED as UNUSED_BY_DETECTORS
from mobilenets.training.loop import Result, Task, learn
from mobilenets.training.mask_batches import mask_batches
from mobilenets.training.mask_losses import class_weights, loss_of
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import SEGMENTER_IMAGES, Settings

# Settings that a segmenter has no use for.
UNUSED = {name: option for name, option in UNUSED_BY_DETECTORS.items() if name not in ("class_weights", "dice")}
UNUSED |= {"mosaic": "--mosaic"}
RATE = 0.1  # SGD's, for `SEGMENTER_IMAGES`; from the weights of a classifier, too, for the head is new
EXACT = ("image", "logits", "output_resize", "probabilities")  # layers that compute in float32 whatever the precision


def usual_rate(settings: Settings) -> float:
    """SGD's highest learning rate for as many images a step, where nobody names one."""
    return RATE * settings.batch_size / SEGMENTER_IMAGES


def fit_segmenter(
    model: keras.Model,
    data: MaskData,
    settings: Settings,
    directory: Path,
    state: State,
    reporter: Callable[[int, int], Reporter] = Reporter,
    tensorboard: Path | None = None,
    from_weights: bool = False,
    elastic: tuple[Network, SegmentationHead, Sequence[Member]] | None = None,
) -> Result:
    """Trains a segmenter in place: `mobilenets.training.fit.fit` for data with masks; arguments as there.

    ``elastic`` tells the head as well.

    Raises:
        UserError: the disk is full, or an image can no longer be read.
    """
    return learn(
        model,
        lambda: _task(model, data, settings, elastic),
        settings,
        directory,
        state,
        reporter,
        tensorboard,
        from_weights,
        head=in_head,
        exact=EXACT,
    )


def _task(
    model: keras.Model,
    data: MaskData,
    settings: Settings,
    elastic: tuple[Network, SegmentationHead, Sequence[Member]] | None,
) -> Task:
    size, networks, predict = model.input_shape[1], scores_model(model), predictor(model)
    evaluation = MaskEvaluationBatches(data.val, size, BATCH)
    loss = loss_of(len(data.classes), settings.dice, class_weights(data.train) if settings.class_weights else None)

    def score() -> dict[str, float]:
        found = found_in(predict, evaluation, data.val)
        metrics = tally(found, data.val, data.classes, boundaries=False).metrics()
        return {f"val_{name}": metrics[name] for name in ("miou", "pixel_accuracy")}

    def stepper(networks: keras.Model) -> Sandwich:
        network, head, members = elastic
        return Sandwich(
            networks, network, members, settings.seed, head=head, loss=lambda _: loss, told_at=masks_at_size
        )

    return Task(
        batches=mask_batches(data, settings, size),
        networks=networks,
        loss=loss,
        metrics=[],
        told=(size, size),
        said=tuple(networks.output_shape[1:]),
        score=score,
        best="val_miou",
        passes=turns(elastic[-1]) if elastic else 1,
        step=stepper if elastic else None,
    )


def masks_at_size(masks: np.ndarray, size: int) -> np.ndarray:
    """Masks (batch, H, W) of images that are brought to a size, uint8 (batch, size, size)."""
    return np.stack([nearest(mask, size, size) for mask in masks])
