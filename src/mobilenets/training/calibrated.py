"""What remains to be done when the weights of several widths and resolutions are trained: statistics, and measuring."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from mobilenets.architectures import cost, write_out
from mobilenets.data import ImageData
from mobilenets.data.loader import EvaluationBatches
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.models import keras
from mobilenets.models.elastic import Elastic, Member, statistics_of, sub_network
from mobilenets.models.statistics import recalibrate
from mobilenets.training.fit import training_batches
from mobilenets.training.settings import Settings

BATCHES = 16  # of images to train on, whose statistics a network gets


def calibrate(
    elastic: Elastic,
    members: list[Member],
    data: ImageData,
    settings: Settings,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Gives sub-networks the statistics of batch normalization that their features have, and measures all.

    Those of a wider network mean nothing to a narrower one, whose sums have fewer terms; those of larger images little
    to smaller ones, which have more of a padded edge.

    Args:
        elastic: gets the statistics.
        members: widths and resolutions.
        data: what it was trained on.
        settings: how.
        progress: called with what is being done, how many of them are done, and how many there are.

    Returns:
        For each its ``width_multiplier``, ``resolution``, ``macs``, ``params`` and ``accuracy`` (0..1) on ``data.val``.
    """
    rows = []
    for index, (alpha, size) in enumerate(members):
        if progress:
            progress("widths and resolutions", index, len(members))
        model = elastic.model
        if (alpha, size) != elastic.widest:
            model = calibrated(elastic, (alpha, size), data, settings)
            elastic.statistics[alpha, size] = statistics_of(model)
        outputs, labels = probabilities(predictor(model), EvaluationBatches(data.val, size, settings.batch_size))
        layers = write_out(elastic.network, (size, size, 3), len(data.classes), alpha)
        totals = cost(layers)
        rows.append(
            {
                "width_multiplier": alpha,
                "resolution": size,
                "macs": totals.macs,
                "params": totals.params,
                "accuracy": round(float((outputs.argmax(axis=1) == labels).mean()), 6),
            }
        )
    return rows


def calibrated(elastic: Elastic, member: Member, data: ImageData, settings: Settings) -> keras.Model:
    """The ordinary model of a width and a resolution, trained or between those trained, with statistics of its own."""
    classes = elastic.model.output_shape[-1]
    model = sub_network(elastic.model, classes, elastic.network, *member).extract()
    recalibrate(model, _images(data, settings, member[1]))
    return model


def _images(data: ImageData, settings: Settings, size: int) -> Iterator[np.ndarray]:
    """Some batches as they are trained on, in an order that no epoch has."""
    settings = replace(settings, batch_size=min(settings.batch_size, len(data.train)), mixup=0.0)
    batches = training_batches(data, settings, size).epoch(settings.epochs)
    return (images for images, _, _ in islice(batches, BATCHES))
